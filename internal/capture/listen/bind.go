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

// keptFree is how many descriptors are left for the rest of the program, apart
// from those of held connections.
const keptFree = 256

// bind makes tcp and udp the ports that have sockets of their own, as far as
// there are descriptors for them.
func (t *Traps) bind(tcp, udp config.PortSet) {
	b := binder{t: t, families: families(), room: t.room()}
	n, m := share(tcp.Count(), udp.Count(), b.room/len(b.families))
	tcp, tcpRest := split(tcp, n)
	udp, udpRest := split(udp, m)
	b.unmade = [2]config.Bitmap{*tcpRest.Bitmap(), *udpRest.Bitmap()}
	have := make(map[key]bool)
	for fd, s := range t.sockets {
		k := key{s.proto, s.v6, s.port}
		switch {
		case s.port == 0:
		case s.row() == 0 && tcp.Has(s.port), s.row() == 1 && udp.Has(s.port):
			have[k] = true
		default:
			if err := t.discard(fd, s); err != nil {
				t.problem(fmt.Sprintf("%s: close: %v", k, err))
			}
		}
	}
	for _, proto := range []struct {
		number uint8
		ports  config.PortSet
	}{{unix.IPPROTO_TCP, tcp}, {unix.IPPROTO_UDP, udp}} {
		for _, r := range proto.ports {
			for port := int(r.First); port <= int(r.Last); port++ {
				for _, v6 := range b.families {
					if k := (key{proto.number, v6, uint16(port)}); !have[k] {
						b.add(k)
					}
				}
			}
		}
	}
	b.report()
}

// room is how many descriptors the sockets may have that are bound.
func (t *Traps) room() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	n := int(min(limit.Cur, 1<<20))
	return max(n-maxHeld-keptFree, n/2)
}

// families are those that the kernel has, as values of socket.v6.
func families() []bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return []bool{false}
	}
	if err == nil {
		closeFD(fd)
	}
	return []bool{false, true}
}

// share divides room between two protocols: half for each, and what one has no
// use for is the other's.
func share(tcp, udp, room int) (int, int) {
	tcp = min(tcp, max(room-room/2, room-udp))
	return tcp, min(udp, room-tcp)
}

// split cuts a set in two behind its n lowest ports.
func split(s config.PortSet, n int) (low, high config.PortSet) {
	for _, r := range s {
		size := int(r.Last) - int(r.First) + 1
		take := min(n, size)
		n -= take
		if take > 0 {
			low = append(low, config.PortRange{First: r.First, Last: uint16(int(r.First) + take - 1)})
		}
		if take < size {
			high = append(high, config.PortRange{First: uint16(int(r.First) + take), Last: r.Last})
		}
	}
	return low, high
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
	t        *Traps
	families []bool
	room     int
	full     bool // no more descriptors, in spite of room
	failed   map[key]error
	unmade   [2]config.Bitmap // ports there was no room for
}

func (b *binder) add(k key) {
	if b.full {
		s := socket{proto: k.proto}
		b.unmade[s.row()][k.port>>6] |= 1 << (k.port & 63)
		return
	}
	if err := b.t.addSocket(k); err != nil {
		b.full = errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
		if b.failed == nil {
			b.failed = make(map[key]error)
		}
		b.failed[k] = err
	}
}

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
		on := b.t.bound()[row]
		unmade := ranges(b.unmade[row].Has).Less(ranges(on.Has))
		if unmade == nil {
			continue
		}
		bound := "none is"
		if on != (config.Bitmap{}) {
			bound = "only " + brief(ranges(on.Has))
		}
		b.t.problem(fmt.Sprintf("%s/%s: not bound, %s: descriptors are enough for %d sockets; raise RLIMIT_NOFILE (LimitNOFILE=)",
			brief(unmade), word, bound, b.room))
	}
}

// bound are the ports that have sockets of their own.
func (t *Traps) bound() (on [2]config.Bitmap) {
	for _, s := range t.sockets {
		if s.port != 0 {
			on[s.row()][s.port>>6] |= 1 << (s.port & 63)
		}
	}
	return on
}

// brief is a set for a line to read: Ports has it whole.
func brief(s config.PortSet) string {
	const most = 16 // ranges
	if len(s) <= most {
		return s.String()
	}
	return fmt.Sprintf("%s and %d more", s[:most], s[most:].Count())
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
