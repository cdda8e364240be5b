package bpf_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Outcomes of what answers a challenge.
var (
	verified = outcome{verdict: drop, what: bpf.WhatVerified, tally: bpf.Tally{Verified: 1, Events: 1}}
	reset    = outcome{verdict: transmit, what: bpf.WhatVerified, tally: bpf.Tally{Verified: 1, Events: 1, Resets: 1}}
	living   = outcome{verdict: drop, what: bpf.WhatLiving, tally: bpf.Tally{Living: 1, Events: 1}}
	guessed  = outcome{verdict: pass, what: bpf.WhatProbe, tally: bpf.Tally{BadAcks: 1, Sighted: 1, Events: 1}}
)

// The ACK that brings the number back proves its source, and only for the
// addresses and ports that the number was made for.
func TestVerified(t *testing.T) {
	for name, rules := range map[string]bpf.Rules{"log only": verify, "armed": verifyArmed} {
		r := newRig(t, bpf.SensorOptions{}, rules)
		wrong := guessed
		if name == "armed" { // and banned since the SYN
			wrong = outcome{verdict: drop, tally: bpf.Tally{BadAcks: 1, DroppedSoft: 1}}
		}
		for _, src := range []netip.Addr{from4, from6} {
			p := tcp(src, trap, syn)
			p.Seq = 1000
			n := r.challenged(p)
			r.events()
			r.counted()
			r.check(name+": ACK", frame(t, acknowledge(p, n, ack, "")), verified)
			r.check(name+": again", frame(t, acknowledge(p, n, ack, "")), verified)
			r.check(name+": with data", frame(t, acknowledge(p, n, ack|psh, "GET /")), reset)
			r.check(name+": FIN", frame(t, acknowledge(p, n, ack|fin, "")), reset)
			r.check(name+": number not raised", frame(t, acknowledge(p, n-1, ack, "")), wrong)
			r.check(name+": other number", frame(t, acknowledge(p, n+4, ack, "")), wrong)
			r.check(name+": other slot", frame(t, acknowledge(p, n^1, ack, "")), wrong)
			r.check(name+": other key", frame(t, acknowledge(p, n^2, ack, "")), wrong)
			q := p
			q.SrcPort++
			r.check(name+": other port", frame(t, acknowledge(q, n, ack, "")), wrong)
			q = p
			q.DstPort = latePort
			q = acknowledge(q, n, ack, "")
			if name == "armed" {
				r.check(name+": other trap", frame(t, q), wrong)
			} else { // where a stray ACK is nothing
				r.check(name+": other trap", frame(t, q), outcome{verdict: pass, tally: bpf.Tally{BadAcks: 1, Noise: 1}})
			}
			q = acknowledge(p, n, ack, "")
			q.Src = q.Src.Next()
			r.check(name+": other source", frame(t, q), guessed)
			q.Src, q.Dst = src, q.Dst.Next()
			r.verdictOf(name+": other destination", frame(t, q), pass)
			if got := r.counted(); got.Verified+got.BadAcks != 0 {
				t.Errorf("%s: other destination: %+v", name, got)
			}
			for _, flags := range []uint16{syn | ack, rst | ack, fin, 0} {
				r.run(frame(t, acknowledge(p, n, flags, "")))
				r.events()
				if got := r.counted(); got.Verified+got.BadAcks+got.Resets != 0 {
					t.Errorf("%s: flags %#x: %+v", name, flags, got)
				}
			}
		}
	}
}

// Whoever sends more than an ACK is reset, byte for byte; where no answer can be
// made his packet is dropped.
func TestReset(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	for _, src := range []netip.Addr{from4, from6} {
		p := tcp(src, trap, syn)
		p.VLANs = []uint16{9}
		n := r.challenged(p)
		r.events()
		q := acknowledge(p, n, ack|psh, "GET / HTTP/1.0\r\n\r\n")
		q.TCPOptions = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
		verdict, out := r.exchange(frame(t, q))
		a := answer(p)
		a.Flags, a.Seq = rst, n+1
		want, err := a.AppendTo(nil, back)
		if err != nil {
			t.Fatal(err)
		}
		for len(want) < 60 {
			want = append(want, 0)
		}
		if verdict != transmit || !bytes.Equal(out, want) {
			t.Errorf("%v: verdict %d:\n got %x\nwant %x", src, verdict, out, want)
		}
		if all := r.events(); len(all) != 1 || all[0].What != bpf.WhatVerified || int(all[0].Payload) != len(q.Payload) {
			t.Errorf("%v: told %+v", src, all)
		}
		r.counted()
		if src.Is4() {
			q.IPOptions = []byte{7, 7, 4, 0, 0, 0, 0}
		} else {
			q.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}}
		}
		r.check("no answer possible", frame(t, q), verified)
	}
}

// Where a listener has come up since, nothing is taken from it.
func TestServedIsNotVerified(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	p := tcp(from4, trap, syn)
	n := r.challenged(p)
	r.events()
	r.counted()
	bpf.Listening(t, "tcp4", "0.0.0.0:23", 0)
	r.check("right number", frame(t, acknowledge(p, n, ack, "")), served)
	r.check("wrong number", frame(t, acknowledge(p, n+8, ack, "")), served)
	r.check("data", frame(t, acknowledge(p, n, ack|psh, "x")), noise)
}

// A RST tells that an address is in use, once, if it was challenged.
func TestLiving(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verifyArmed)
	for _, src := range []netip.Addr{from4, from6} {
		p := tcp(src, trap, syn)
		answer := p
		answer.Flags, answer.Seq = rst, p.Seq+1
		b := frame(t, answer)
		r.check("before", b, noise)
		r.challenged(p)
		r.events()
		r.counted()
		elsewhere := answer
		elsewhere.DstPort = noTrap
		r.check("for no trap", frame(t, elsewhere), soft)
		r.check("first", b, living)
		r.check("second", b, soft)
	}
	// The same where user space has banned him meanwhile.
	prefix := netip.PrefixFrom(source(1), 32)
	r.must(r.PutBans([]bpf.Ban{{Prefix: prefix, Strength: bpf.Soft, Protos: bpf.BanAll}}))
	p := tcp(source(1), trap, rst)
	r.check("banned, not challenged", frame(t, p), soft)
	r.challenged(tcp(source(1), trap, syn))
	r.events()
	r.counted()
	r.check("banned", frame(t, p), living)
	if b, _, err := r.Ban(prefix); err != nil || !b.Alive {
		t.Errorf("ban %+v, %v", b, err)
	}
}

// budget is what may be spent in a time, by the program's clock, which ticks every
// 10 ms at worst.
func budget(burst, rate int, took time.Duration) uint64 {
	return uint64(burst) + uint64((took+10*time.Millisecond).Seconds()*float64(rate)) + 1
}

// One network gets 200 answers and then 100 a second, whatever it sends; others
// get theirs.
func TestBudgetOfNetwork(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	for name, src := range map[string]func(i int) netip.Addr{
		"10.0.0.0/24":   func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) },
		"2001:db8::/64": func(i int) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}) },
	} {
		start := time.Now()
		for i := range 400 {
			r.run(frame(t, tcp(src(i), trap, syn)))
		}
		took := time.Since(start)
		got := r.counted()
		if most := budget(200, 100, took); got.Challenged < 200 || got.Challenged > most || got.Challenged+got.Unchallenged != 400 {
			t.Errorf("%s: %d of 400 answered in %v, %d not", name, got.Challenged, took, got.Unchallenged)
		}
		// One more is earned every 10 ms.
		over := false
		for range 400 {
			over = over || r.run(frame(t, tcp(src(1), trap, syn))) == pass
		}
		if !over {
			t.Errorf("%s: nobody is over the budget", name)
		}
		r.counted()
	}
	r.verdictOf("another network", frame(t, tcp(netip.MustParseAddr("10.0.1.1"), trap, syn)), transmit)
	r.verdictOf("another network", frame(t, tcp(netip.MustParseAddr("2001:db8:0:1::1"), trap, syn)), transmit)
}

// All networks together get 10,000 answers, and 10,000 a second.
func TestBudget(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	p, start := tcp(from4, trap, syn), time.Now()
	sent := 0
	for r.counted().Unchallenged == 0 && sent < 200_000 {
		for range 1000 {
			p.Src = source(sent % 16384 << 8)
			r.run(frame(t, p))
			sent++
		}
	}
	took := time.Since(start)
	tally, err := r.Tally()
	r.must(err)
	if most := budget(10_000, 10_000, took); tally.Challenged < 10_000 || tally.Challenged > most || tally.Unchallenged == 0 {
		t.Errorf("%d of %d answered in %v, at most %d", tally.Challenged, sent, took, most)
	}
}

// Whoever tries numbers ends the challenge for a minute; so long as that lasts
// nobody is verified either.
func TestPause(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	p := tcp(from4, trap, syn)
	n := r.challenged(p)
	wrong := frame(t, acknowledge(p, n+4, ack|psh, "x"))
	if until, err := r.VerifyPaused(); err != nil || !until.IsZero() {
		t.Fatalf("paused until %v, %v", until, err)
	}
	r.counted()
	start, sent := time.Now(), uint64(0)
	for ; sent < 100_000; sent++ {
		r.run(wrong)
		if until, err := r.VerifyPaused(); err != nil {
			t.Fatal(err)
		} else if !until.IsZero() {
			break
		}
	}
	took := time.Since(start)
	got := r.counted()
	if most := budget(1000, 1000, took); got.Pauses != 1 || got.BadAcks != sent+1 || sent < 1000 || sent > most {
		t.Errorf("after %d of them in %v: %+v", sent, took, got)
	}
	until, err := r.VerifyPaused()
	if left := time.Until(until); err != nil || left < 50*time.Second || left > time.Minute {
		t.Errorf("for %v, %v", left, err)
	}
	r.events()
	r.check("wrong", wrong, noise)
	r.check("right", frame(t, acknowledge(p, n, ack, "")), sighted)
	r.check("SYN", frame(t, p), outcome{verdict: pass, what: bpf.WhatProbe, tally: bpf.Tally{Sighted: 1, Unchallenged: 1, Events: 1}})
	r.must(r.EndPause())
	r.check("right, again", frame(t, acknowledge(p, n, ack, "")), verified)
	r.check("SYN, again", frame(t, p), outcome{verdict: transmit, what: bpf.WhatProbe, tally: bpf.Tally{Sighted: 1, Challenged: 1, Events: 1}})
}

// A number outlives the next rotation of keys, not the one after that.
func TestRotateKeys(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	p := tcp(from4, trap, syn)
	echo := func(n uint32) uint64 {
		r.run(frame(t, acknowledge(p, n, ack, "")))
		return r.counted().Verified
	}
	first := r.challenged(p)
	r.must(r.RotateKeys())
	second := r.challenged(p)
	r.must(r.RotateKeys()) // too early
	if r.counted(); echo(first) != 1 || echo(second) != 1 || first>>1&1 == second>>1&1 || first&^3 == second&^3 {
		t.Errorf("after a rotation: %x, then %x", first, second)
	}
	r.AgeKeys()
	r.must(r.RotateKeys())
	if echo(first) != 0 || echo(second) != 1 || echo(r.challenged(p)) != 1 {
		t.Error("after two rotations")
	}
}
