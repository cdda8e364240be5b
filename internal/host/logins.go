package host

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var loginRecords = []source{
	{"/run/utmp", nil},
	{"/var/run/utmp", nil},
	{"/run/systemd/sessions/*", keyed("=", "remote_host")},
}

// logins lists the remote ends of login sessions: those that the system has
// records of.
func (f fileSystem) logins() []netip.Addr {
	var l []netip.Addr
	for _, s := range loginRecords {
		if s.parse != nil {
			l = append(l, f.addresses([]source{s})...)
			continue
		}
		f.read(s.pattern, func(text string) {
			for _, e := range parseUtmp([]byte(text), runtime.GOARCH) {
				// After a crash there are records of sessions long gone.
				if unix.Kill(int(e.pid), 0) != unix.ESRCH && len(l) < maxAddrs {
					l = append(l, e.addr)
				}
			}
		})
	}
	return remote(l)
}

// ownLogin finds the session that we were started from: sshd writes its
// client's address into the environment, sudo and su may take it out again, so
// that of our ancestors counts too. It is called once, at start: later the
// privilege to read them may be gone.
func (f fileSystem) ownLogin() []netip.Addr { return f.loginOf(os.Getpid()) }

// LoginOf is where the process pid is logged in from, as far as its environment and
// that of its ancestors say: usually one address, or none. It takes the privilege to
// look into them.
func LoginOf(pid int) []netip.Addr { return fileSystem{"/"}.loginOf(pid) }

// maxEnviron bounds how much of an environment is looked at: sshd's variables are
// among the first.
const maxEnviron = 128 << 10

func (f fileSystem) loginOf(pid int) []netip.Addr {
	var l []netip.Addr
	for range 64 { // generations; pid 1 has parent 0
		if pid <= 0 {
			break
		}
		dir := filepath.Join(f.root, "proc", strconv.Itoa(pid))
		if env, err := readStart(filepath.Join(dir, "environ"), maxEnviron); err == nil {
			l = append(l, parseEnviron(env)...)
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			break
		}
		pid = parentOf(stat)
	}
	return remote(l)
}

// readStart reads at most size bytes of a file.
func readStart(path string, size int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, size))
}

func remote(l []netip.Addr) []netip.Addr {
	var r []netip.Addr
	for _, a := range l {
		if !a.IsLoopback() {
			r = append(r, a)
		}
	}
	return sorted(r)
}

// parseEnviron reads SSH_CONNECTION="client port server port" and
// SSH_CLIENT="client port port" out of NUL-separated variables.
func parseEnviron(env []byte) []netip.Addr {
	var l []netip.Addr
	for v := range bytes.SplitSeq(env, []byte{0}) {
		name, value, _ := strings.Cut(string(v), "=")
		if name != "SSH_CONNECTION" && name != "SSH_CLIENT" {
			continue
		}
		client, _, _ := strings.Cut(value, " ")
		if a, ok := literal(client); ok {
			l = append(l, a)
		}
	}
	return l
}

// parentOf reads the fourth field of /proc/PID/stat. The second is the
// program's name in brackets and may hold anything.
func parentOf(stat []byte) int {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	pid, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0
	}
	return pid
}

type utmpEntry struct {
	pid  int32
	addr netip.Addr
}

// parseUtmp reads the user sessions with an address out of utmp(5): records of
// {type i16, pad, pid i32 at 4, ..., host [256] at 76, ..., address [16]}. Where
// 32-bit programs were never a concern of the C library, the session and time
// before the address are 64 bits wide. An IPv4 address has the last twelve
// bytes zero.
func parseUtmp(b []byte, arch string) []utmpEntry {
	const userProcess = 7
	size, address := 384, 348
	switch arch {
	case "arm64", "riscv64", "loong64":
		size, address = 400, 360
	}
	var l []utmpEntry
	for ; len(b) >= size; b = b[size:] {
		if int16(binary.NativeEndian.Uint16(b)) != userProcess {
			continue
		}
		e := utmpEntry{pid: int32(binary.NativeEndian.Uint32(b[4:]))}
		raw := [16]byte(b[address:])
		if [12]byte(raw[4:]) == [12]byte{} {
			e.addr = netip.AddrFrom4([4]byte(raw[:4]))
		} else {
			e.addr = netip.AddrFrom16(raw).Unmap()
		}
		if e.addr.IsUnspecified() {
			a, ok := literal(text(b[76:332]))
			if !ok {
				continue
			}
			e.addr = a
		}
		if e.pid > 0 && !e.addr.IsMulticast() && len(l) < maxAddrs {
			l = append(l, e)
		}
	}
	return l
}
