package listen

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/host"
)

// keptFree is how many descriptors are left for the rest of the program.
const keptFree = 256

// bind makes tcp and udp the ports that have sockets of their own.
func (t *Traps) bind(tcp, udp config.PortSet) {
	have := make(map[key]bool)
	for fd, s := range t.sockets {
		k := key{s.proto, s.v6, s.port}
		switch {
		case s.port == 0:
		case s.row() == 0 && tcp.Has(s.port), s.row() == 1 && udp.Has(s.port):
			have[k] = true
		default:
			t.lost += s.drops()
			delete(t.sockets, fd)
			if err := unix.Close(fd); err != nil {
				t.problem(fmt.Sprintf("%s: close: %v", k, err))
			}
		}
	}
	b := binder{t: t, room: t.room()}
	for _, proto := range []struct {
		number uint8
		ports  config.PortSet
	}{{unix.IPPROTO_TCP, tcp}, {unix.IPPROTO_UDP, udp}} {
		for _, r := range proto.ports {
			for port := int(r.First); port <= int(r.Last); port++ {
				for _, v6 := range []bool{false, true} {
					if k := (key{proto.number, v6, uint16(port)}); !have[k] {
						b.add(k)
					}
				}
			}
		}
	}
	b.report()
}

// room is how many descriptors the sockets may have in all.
func (t *Traps) room() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	n := int(min(limit.Cur, 1<<20))
	return max(n-maxHeld-keptFree, n/2)
}

// key is what a socket with a port of its own is there for.
type key struct {
	proto uint8
	v6    bool
	port  uint16
}

func (k key) String() string {
	if k.proto == unix.IPPROTO_UDP {
		return fmt.Sprintf("%d/udp", k.port)
	}
	return fmt.Sprintf("%d/tcp", k.port)
}

// binder binds ports and keeps what went wrong.
type binder struct {
	t      *Traps
	room   int
	no6    bool
	failed map[key]error
	unmade [2]config.Bitmap // ports there was no room for
}

func (b *binder) add(k key) {
	if k.v6 && b.no6 {
		return
	}
	err := errNoRoom
	if len(b.t.sockets) < b.room {
		err = b.t.addSocket(k)
	}
	switch {
	case err == nil:
	case k.v6 && errors.Is(err, unix.EAFNOSUPPORT):
		b.no6 = true
	case errors.Is(err, errNoRoom), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		s := socket{proto: k.proto}
		b.unmade[s.row()][k.port>>6] |= 1 << (k.port & 63)
	default:
		if b.failed == nil {
			b.failed = make(map[key]error)
		}
		b.failed[k] = err
	}
}

var errNoRoom = errors.New("no room for another descriptor")

func (t *Traps) addSocket(k key) error {
	s, err := newSocket(k.proto, k.v6, k.port)
	if err != nil {
		return err
	}
	if err := t.listenTo(s.fd); err != nil {
		return errors.Join(err, unix.Close(s.fd))
	}
	t.sockets[s.fd] = s
	return nil
}

// report names every port that is not bound, once, and who has it.
func (b *binder) report() {
	owners := b.owners()
	for _, k := range slices.SortedFunc(maps.Keys(b.failed), func(x, y key) int {
		return (int(x.proto)-int(y.proto))<<20 + (int(x.port)-int(y.port))<<1 + boolean(x.v6) - boolean(y.v6)
	}) {
		four := k
		four.v6 = false
		where := ""
		if k.v6 {
			if errors.Is(b.failed[four], b.failed[k]) {
				continue
			}
			where = " over IPv6"
		}
		line := fmt.Sprintf("%s%s: %v", k, where, b.failed[k])
		if name := owners[four]; name != "" {
			line += " (" + name + ")"
		}
		if errors.Is(b.failed[k], unix.EACCES) {
			line += ": ports below 1024 take CAP_NET_BIND_SERVICE"
		}
		b.t.problem(line)
	}
	for row, word := range []string{"tcp", "udp"} {
		if ports := ranges(b.unmade[row].Has); ports != nil {
			b.t.problem(fmt.Sprintf("%s/%s: not all bound: descriptors are limited to %d sockets here; raise RLIMIT_NOFILE (LimitNOFILE=)", ports, word, b.room))
		}
	}
}

// owners finds the programs that have the ports we did not get.
func (b *binder) owners() map[key]string {
	if len(b.failed) == 0 {
		return nil
	}
	sockets, err := host.NewSockets()
	if err != nil {
		return nil // the lines do without
	}
	defer sockets.Close()
	list, err := sockets.Listeners()
	if err != nil {
		return nil
	}
	list = slices.DeleteFunc(list, func(l host.Listener) bool {
		return b.failed[key{l.Proto, false, l.Port}] == nil && b.failed[key{l.Proto, true, l.Port}] == nil
	})
	host.Owners(list)
	names := make(map[key]string)
	for _, l := range list {
		names[key{l.Proto, false, l.Port}] = l.Process
	}
	return names
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
