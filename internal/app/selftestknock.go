package app

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/pktgen"
)

// knock is a harmless packet that is answered unless its source is kept out.
type knock struct {
	packet   pktgen.Packet
	answered bool
}

// knockAt is a knock from src at the served port, or at the closed one, where a
// refusal is the answer.
func (s *selfStage) knockAt(src netip.Addr, udp, closed bool) *knock {
	p := s.tcp(src, s.served, pktgen.SYN)
	if udp {
		p = s.udp(src, s.served)
	}
	if closed {
		p.DstPort = s.closed
	}
	return &knock{packet: p}
}

// nextPort is a source port that was not used before: what was begun before a
// ban goes on.
func (s *selfStage) nextPort() uint16 {
	s.port++
	return s.port
}

func (s *selfStage) tcp(src netip.Addr, to, flags uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.hostFor(src), Proto: pktgen.ProtoTCP,
		SrcPort: s.nextPort(), DstPort: to, Flags: flags, Seq: 1000, Window: 1024,
	}
}

func (s *selfStage) udp(src netip.Addr, to uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.hostFor(src), Proto: pktgen.ProtoUDP,
		SrcPort: s.nextPort(), DstPort: to, Payload: []byte("portsentry selftest"),
	}
}

// offer sends a packet, and does not wait long for an interface that takes none.
func (s *selfStage) offer(p pktgen.Packet) error {
	const patience = 100 * time.Millisecond
	return s.send.Offer(p, patience)
}

// is reports whether a is the answer to the knock: from the port, or the ICMP
// error about a closed one (RFC 792, RFC 4443: destination unreachable).
func (k *knock) is(a *pktgen.Answer) bool {
	p := &k.packet
	switch {
	case a.Dst != p.Src || a.Src != p.Dst:
		return false
	case a.Proto == p.Proto:
		return a.SrcPort == p.DstPort && a.DstPort == p.SrcPort
	case p.Proto == pktgen.ProtoUDP:
		return a.Proto == pktgen.ProtoICMP && a.Type == 3 || a.Proto == pktgen.ProtoICMPv6 && a.Type == 1
	}
	return false
}

const (
	knockTime = 2 * time.Second        // for an answer to come, on a busy machine
	lateTime  = 150 * time.Millisecond // for those that the answer to an honest address overtook
	knockPoll = 2 * time.Millisecond
)

// wave sends knocks and notes which are answered. Behind them comes one of an
// honest address: when it is answered, whatever is to be answered before it is.
// Without that answer nothing is known.
func (s *selfStage) wave(ctx context.Context, knocks []*knock) error {
	seen := len(s.answers.Answers())
	all := knocks
	for _, family := range s.families {
		all = append(all, s.knockAt(s.address(family, placeHonest), false, false))
	}
	honest := all[len(knocks):]
	for _, k := range all {
		k.answered = false
		if err := s.offer(k.packet); err != nil {
			return err
		}
	}
	var due time.Time // when the honest ones were answered
	for end := time.Now().Add(knockTime); ; {
		for answers := s.answers.Answers(); seen < len(answers); seen++ {
			for _, k := range all {
				k.answered = k.answered || k.is(&answers[seen])
			}
		}
		now := time.Now()
		if due.IsZero() && count(honest) == len(honest) {
			due = now
		}
		switch {
		case count(all) == len(all), !due.IsZero() && now.Sub(due) > lateTime:
			return nil
		case now.After(end):
			return fmt.Errorf("port %d, which is served and never left alone, did not answer within %v", s.served, knockTime)
		}
		if err := pause(ctx, knockPoll); err != nil {
			return err
		}
	}
}

// count is how many were answered.
func count(knocks []*knock) (n int) {
	for _, k := range knocks {
		if k.answered {
			n++
		}
	}
	return n
}

// pause waits for d, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// until polls until ok holds, and reports whether it did within limit.
func until(ctx context.Context, limit time.Duration, ok func() (bool, error)) (bool, error) {
	for end := time.Now().Add(limit); ; {
		if done, err := ok(); done || err != nil {
			return done, err
		}
		if time.Now().After(end) {
			return false, nil
		}
		if err := pause(ctx, knockPoll); err != nil {
			return false, err
		}
	}
}
