package host

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	procNetAge   = time.Second // how old an answer from /proc/net may be
	procNetLines = 1 << 18     // sockets read at most
)

// procNet answers from /proc/net/tcp and the like what sock_diag would: slower,
// from a copy up to procNetAge old, and it sees no bound devices, so that a
// socket bound to one counts for all.
type procNet struct {
	files []*os.File
	read  time.Time
	bound map[netip.AddrPort]struct{}    // listening, or unconnected UDP
	conns map[[2]netip.AddrPort]struct{} // local, remote
}

func openProcNet(proto uint8) (*procNet, error) {
	name := "tcp"
	if proto == unix.IPPROTO_UDP {
		name = "udp"
	}
	p := new(procNet)
	for _, n := range []string{name, name + "6"} {
		f, err := openNet(n)
		if errors.Is(err, fs.ErrNotExist) && n != name {
			continue // no IPv6
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("list sockets: %w", err), p.close())
		}
		p.files = append(p.files, f)
	}
	return p, nil
}

func (p *procNet) close() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (p *procNet) each(states uint32, f func(socket)) error {
	for _, file := range p.files {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
		lines := bufio.NewScanner(file)
		for n := 0; lines.Scan() && n < procNetLines; n++ {
			if s, ok := parseProcNet(lines.Bytes()); ok && states&(1<<s.state) != 0 {
				f(s)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
	}
	return nil
}

// find is the state of the socket that a packet from remote to local would be
// given to.
func (p *procNet) find(local, remote netip.AddrPort) (State, error) {
	if time.Since(p.read) > procNetAge {
		p.bound, p.conns = make(map[netip.AddrPort]struct{}), make(map[[2]netip.AddrPort]struct{})
		err := p.each(^uint32(0), func(s socket) {
			if s.remote.Port() == 0 {
				p.bound[s.local] = struct{}{}
			} else {
				p.conns[[2]netip.AddrPort{s.local, s.remote}] = struct{}{}
			}
		})
		if err != nil {
			return NoSocket, err
		}
		p.read = time.Now()
	}
	if _, ok := p.conns[[2]netip.AddrPort{local, remote}]; ok {
		return Connected, nil
	}
	// [::] takes IPv4 too unless it is set to IPv6 only, which is not shown:
	// then a port counts as served that is not, which harms nobody.
	for _, a := range []netip.Addr{local.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if a.Is4() && local.Addr().Is6() {
			continue
		}
		if _, ok := p.bound[netip.AddrPortFrom(a, local.Port())]; ok {
			return Listening, nil
		}
	}
	return NoSocket, nil
}

// parseProcNet reads "0: 0100007F:0016 00000000:0000 0A tx:rx tr:when retransmits
// uid timeout inode ...": addresses are 32-bit words in the machine's order.
func parseProcNet(line []byte) (s socket, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) < 10 {
		return s, false
	}
	var okLocal, okRemote bool
	s.local, okLocal = parseHexAddr(fields[1])
	s.remote, okRemote = parseHexAddr(fields[2])
	state, err := strconv.ParseUint(string(fields[3]), 16, 5)
	if !okLocal || !okRemote || err != nil {
		return s, false
	}
	inode, err := strconv.ParseUint(string(fields[9]), 10, 32)
	s.state, s.inode = uint8(state), uint32(inode)
	return s, err == nil
}

func parseHexAddr(b []byte) (netip.AddrPort, bool) {
	addr, port, ok := bytes.Cut(b, []byte{':'})
	if !ok || len(addr) != 8 && len(addr) != 32 {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(string(addr))
	if err != nil {
		return netip.AddrPort{}, false
	}
	for w := raw; len(w) > 0; w = w[4:] {
		native.PutUint32(w, uint32(w[0])<<24|uint32(w[1])<<16|uint32(w[2])<<8|uint32(w[3]))
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}
