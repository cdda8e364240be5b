package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procSize is more than a list of tables, or the head of /proc/net/ip_vs, takes.
const procSize = 4 << 10

// readNet reads the beginning of a file of the calling thread's network
// namespace. A file that does not exist is empty: the module is not loaded.
func readNet(name string) (string, error) {
	f, err := openNet(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, procSize))
	return string(b), errors.Join(err, f.Close())
}

// virtualServices looks whether IPVS has services in the namespace of the
// calling thread.
func virtualServices() (string, error) {
	list, err := readNet("ip_vs")
	if err != nil || !hasServices(list) {
		return "", err
	}
	return "IPVS has virtual services", nil
}

// hasServices: three lines of headings, then each service and its servers.
func hasServices(list string) bool {
	lines := strings.SplitN(list, "\n", 4)
	return len(lines) == 4 && lines[3] != ""
}

// xtables is one of the two legacy iptables: struct ipt_entry and struct
// ip6t_entry differ by the size of what they match.
type xtables struct {
	name, tables  string
	family, level int
	target        int // offset of target_offset u16; next_offset u16 follows
}

func legacyKinds() []xtables {
	return []xtables{
		{"iptables", "ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 88},
		{"ip6tables", "ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 140},
	}
}

// linux/netfilter_ipv4/ip_tables.h; the numbers of ip6_tables.h are the same.
const (
	xtGetInfo    = 64 // IPT_SO_GET_INFO
	xtGetEntries = 65 // IPT_SO_GET_ENTRIES

	xtNameSize = 32
	xtInfoSize = 84 // struct ipt_getinfo; the size of the entries u32 is its end
	xtHeadSize = 40 // struct ipt_get_entries: name, size u32, 4 bytes to align the entries

	xtTargetHead = 2 // of struct xt_entry_target {size u16, name [29], revision u8}
	xtTargetName = 29

	xtMaxSize = 64 << 20 // of a table that is read
	xtTries   = 4        // it may grow between the two questions
)

// legacyTables looks through the nat and mangle tables of the legacy iptables,
// in the namespace of the calling thread. It asks only for tables that are
// listed, since asking for another would make it.
func legacyTables() (string, error) {
	for _, x := range legacyKinds() {
		list, err := readNet(x.tables)
		if err != nil {
			return "", fmt.Errorf("legacy tables of %s: %w", x.name, err)
		}
		for table := range strings.FieldsSeq(list) {
			if table != "nat" && table != "mangle" {
				continue
			}
			entries, err := x.read(table)
			if err == nil {
				var target string
				if target, err = x.diverts(entries); target != "" {
					return fmt.Sprintf("%s (legacy) rule in table %s: %s", x.name, table, target), nil
				}
			}
			if err != nil {
				return "", fmt.Errorf("%s (legacy) table %s: %w", x.name, table, err)
			}
		}
	}
	return "", nil
}

// read gets the entries of a table.
func (x xtables) read(table string) ([]byte, error) {
	fd, err := unix.Socket(x.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for range xtTries {
		info := make([]byte, xtInfoSize)
		copy(info[:xtNameSize-1], table)
		if err := getsockopt(fd, x.level, xtGetInfo, info); err != nil {
			return nil, err
		}
		size := native.Uint32(info[xtInfoSize-4:])
		if size > xtMaxSize {
			return nil, fmt.Errorf("it takes %d MiB: %w", size>>20, unix.EFBIG)
		}
		b := make([]byte, xtHeadSize+size)
		copy(b[:xtNameSize-1], table)
		native.PutUint32(b[xtNameSize:], size)
		err = getsockopt(fd, x.level, xtGetEntries, b)
		if err == nil {
			return b[xtHeadSize:], nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
	}
	return nil, err
}

// diverts finds the first target that hands packets to somebody else.
func (x xtables) diverts(entries []byte) (string, error) {
	for len(entries) > 0 {
		if len(entries) < x.target+4 {
			return "", unix.EBADMSG
		}
		target, next := int(native.Uint16(entries[x.target:])), int(native.Uint16(entries[x.target+2:]))
		name := target + xtTargetHead
		if target < x.target+4 || next < name+xtTargetName || next > len(entries) {
			return "", unix.EBADMSG
		}
		if n := trimNUL(entries[name : name+xtTargetName]); divertingTarget(n) {
			return string(n), nil
		}
		entries = entries[next:]
	}
	return "", nil
}

func getsockopt(fd, level, name int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
