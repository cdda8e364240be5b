package crowd

import (
	"fmt"
	"math"
	"net/netip"
)

// seconds is the length of the window that rates are taken over: longer than silence
// takes to be known, so that contacts that come late still find their second.
const seconds = 16

// rate is events per second in the last seconds, and what is usual.
type rate struct {
	ring    [seconds]int64 // by second modulo seconds
	newest  int64          // second, since 1970
	sum     int64
	usual   float64 // per second
	learned int64   // the last second that went into usual
}

// add counts n events at the time t (unix nanoseconds).
func (r *rate) add(t, n int64) {
	sec := t / 1e9
	if r.newest-sec > 3600 { // the clock was set back
		*r = rate{usual: r.usual}
	}
	r.advance(sec)
	if sec < 0 || sec <= r.newest-seconds {
		return
	}
	r.ring[sec%seconds] += n
	r.sum += n
}

// advance empties the seconds up to sec.
func (r *rate) advance(sec int64) {
	for s := max(r.newest+1, sec-seconds+1, 0); s <= sec; s++ {
		r.sum -= r.ring[s%seconds]
		r.ring[s%seconds] = 0
	}
	r.newest = max(r.newest, sec)
}

// oldest is the start of the first second of the window in which something was.
func (r *rate) oldest() int64 {
	for s := max(0, r.newest-seconds+1); s < r.newest; s++ {
		if r.ring[s%seconds] != 0 {
			return s * 1e9
		}
	}
	return r.newest * 1e9
}

// tick forgets what is too old, and learns what is usual, over ten minutes.
func (r *rate) tick(now int64, learn bool) {
	sec := now / 1e9
	r.advance(sec)
	if learn && r.learned != 0 && sec > r.learned {
		r.usual += (float64(r.sum)/seconds - r.usual) * -math.Expm1(-float64(sec-r.learned)/600)
	}
	if sec > r.learned || r.learned-sec > 3600 { // else what is late would teach the same seconds again
		r.learned = sec
	}
}

// limit is how many events in the window are out of the ordinary: perSecond, and eight
// times what is usual on top of it. If they came independently of each other
// (Poisson, mean m), k or more would come with a probability below (e m/k)^k: with k over
// 8 m and over 160, below (e/8)^160 = 10^-75. Real crowds do not come independently, and
// that is what the eight is for.
func (r *rate) limit(perSecond int64) int64 {
	return seconds*perSecond + int64(8*seconds*r.usual)
}

// A flood in forged names is sources that were never seen before and never will be,
// each with one contact, at a rate that is out of the ordinary. From floodRate new
// sources a second on, the hot tier of 65,536 would be filled in a quarter of an hour,
// sooner than slow scans show. People who come in crowds complete handshakes and turn to
// a second thing; of forged addresses hardly one does: one in twenty is allowed.
//
// An answered contact without a handshake counts only where handshakes can be seen at
// all (a sight that asks sockets sees none), or where names occur that no packet can come
// from (0/8, 127/8, 224/3: 13 per cent of all, if addresses are drawn at random).
//
// A sweep that is shared out comes to many ports, most of all to a few addresses; this to
// one or few. At more than floodRate new sources a second, each with one packet, no
// difference is left, and it is called a flood: it freezes, which hurts nobody.
const floodRate = 64

type flood struct {
	fresh   rate // sources that were never seen
	quiet   rate // of those, answered without a handshake (not in fresh)
	back    rate // those that came back, or completed a handshake
	strange rate // names that no packet can come from
	shook   bool // handshakes can be seen: one was
	on      bool
	one     bool // it is at one port
	notice  Notice
	ports   most
	ttl     [2]uint8 // lowest, highest
	counted uint64   // contacts that are in ports
	odd     uint64   // of its names
}

// flooding counts the contact.
func (c *Crowd) flooding(a *about) {
	f, ct := &c.flood, a.ct
	if ct.Verified {
		f.back.add(ct.Time, 1)
		return
	}
	if !a.fresh {
		if a.s.contacts == 1 && within(int64(a.s.first)*1e9, ct.Time, seconds*1e9) {
			f.back.add(ct.Time, 1)
		}
		return
	}
	if a.failed {
		f.fresh.add(ct.Time, 1)
	} else {
		f.quiet.add(ct.Time, 1)
	}
	odd := impossible(ct.Src)
	if odd {
		f.strange.add(ct.Time, 1)
	}
	if f.on {
		f.count(a, odd)
		return
	}
	if f.fresh.sum+f.quiet.sum < seconds*floodRate {
		return
	}
	if n := f.sum(); n >= f.fresh.limit(floodRate)+f.quietUsual() && f.back.sum*20 <= n {
		f.begin(c, a)
	}
}

// sum is the new sources in the window that may be forged.
func (f *flood) sum() int64 {
	if f.shook || f.strange.sum*20 >= f.fresh.sum+f.quiet.sum {
		return f.fresh.sum + f.quiet.sum
	}
	return f.fresh.sum
}

func (f *flood) quietUsual() int64 { return int64(8 * seconds * f.quiet.usual) }

func (f *flood) begin(c *Crowd, a *about) {
	f.on, f.one = true, false
	f.ports, f.ttl, f.odd, f.counted = most{}, [2]uint8{255, 0}, 0, 0
	f.notice = Notice{What: Flood, First: min(f.fresh.oldest(), a.ct.Time), Last: a.ct.Time, Packets: uint64(f.sum()), Sources: int(f.sum()),
		Reason: "new sources, one contact each, faster than there can be people: a flood in forged names"}
	c.notices.begin(&f.notice, &c.stats)
}

// count counts a new source of the flood.
func (f *flood) count(a *about, odd bool) {
	ct, n := a.ct, &f.notice
	n.Packets++
	n.Sources++
	n.Last = max(n.Last, ct.Time)
	f.ttl[0], f.ttl[1] = min(f.ttl[0], ct.Head.TTL), max(f.ttl[1], ct.Head.TTL)
	if odd {
		f.odd++
	}
	f.ports.add(uint64(ct.Proto)<<16|uint64(ct.DstPort), 1)
	f.counted++
	if n.Sources&(n.Sources-1) == 0 {
		f.aim()
	}
}

// aim finds out whether the flood is at one port: nine in ten of its contacts.
func (f *flood) aim() {
	key, n := f.ports.top()
	f.one = f.counted > 0 && n*10 >= f.counted*9
	f.notice.Proto, f.notice.Port = 0, 0
	if f.one {
		f.notice.Proto, f.notice.Port = uint8(key>>16), uint16(key)
	}
}

func (f *flood) at(proto uint8, port uint16) bool {
	return f.on && f.one && proto == f.notice.Proto && port == f.notice.Port
}

func (f *flood) tick(c *Crowd) {
	for _, r := range [...]*rate{&f.fresh, &f.quiet, &f.back, &f.strange} {
		r.tick(c.now, !f.on)
	}
	if n := f.sum(); f.on && (f.back.sum*20 > n || n < (f.fresh.limit(floodRate)+f.quietUsual())/2) {
		f.stop(c)
	}
}

func (f *flood) stop(c *Crowd) {
	if !f.on {
		return
	}
	f.aim()
	n := &f.notice
	where := "on many ports (or a sweep shared out among more sources than can be told from it)"
	if f.one {
		where = fmt.Sprintf("on port %d", n.Port)
	}
	n.Reason = fmt.Sprintf("%d new sources, one contact each, %s: a flood in forged names; TTL %d to %d, %d names that cannot exist",
		n.Sources, where, f.ttl[0], f.ttl[1], f.odd)
	c.notices.end(n, &c.stats)
	f.on = false
	c.ports.forget(n.Proto, n.Port)
}

// impossible reports an address that no packet from elsewhere can have as its source.
func impossible(a netip.Addr) bool {
	if !a.Is4() {
		return a.IsMulticast() || a.IsLoopback() || a.IsUnspecified()
	}
	b := a.As4()
	return b[0] == 0 || b[0] == 127 || b[0] >= 224
}
