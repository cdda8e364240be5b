package app

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// Why is for control.Past.
func (d *daemon) Why(ctx context.Context, a netip.Addr) (view.Why, error) {
	done, err := d.ask()
	if err != nil {
		return view.Why{}, err
	}
	defer done()
	q := inquiry{a: a, conf: d.conf.Load(), interfaceName: d.facts.interfaceName, recent: d.journal.Recent(a)}
	q.policy = d.policy(q.conf)
	q.tcp, q.udp = d.trapPorts(q.conf)
	if t := d.facts.latest.Load(); t != nil {
		if as := t.Spares(a, netip.Addr{}); as != judge.NotSpared {
			q.spared, q.ignored = t.Reason(netip.PrefixFrom(a, a.BitLen()), as), as == judge.Ignored
		}
	}
	whose := store.Filter{Source: netip.PrefixFrom(a, a.BitLen()), Limit: maxPast} // and of networks it lies in
	if row, banned := d.responder.Find(a); banned {
		q.standing = &row
	}
	if q.lives, _, err = d.journal.Lives(ctx, whose); err != nil {
		return view.Why{}, err
	}
	sources, _, err := d.journal.Sources(ctx, whose)
	if err != nil {
		return view.Why{}, err
	}
	if len(sources) > 0 {
		q.source = &sources[0]
	}
	return q.answer(), nil
}

// maxPast is how many earlier bans are told of.
const maxPast = 20

// inquiry is what is known of an address.
type inquiry struct {
	a             netip.Addr
	conf          *config.Config
	policy        judge.Policy
	tcp, udp      config.PortSet // traps
	interfaceName func(int32) string

	spared   string // why it is never acted on
	ignored  bool   // by the ignore file
	standing *respond.InForce
	lives    []store.Life // newest first
	recent   []store.Packet
	source   *store.Source
}

// answer says what comes of it.
func (q *inquiry) answer() view.Why {
	y := view.Why{
		Address: q.a, Verdict: view.VerdictUnknown, Spared: q.spared, IgnoreFile: q.conf.IgnoreFile,
		Packets: []view.Packet{}, Rules: []view.Rule{}, Arithmetic: []string{}, Past: []view.PastBan{},
	}
	if q.source != nil {
		seen := sourceRow(q.source)
		seen.Banned = q.standing != nil
		y.Seen, y.Name = &seen, seen.Name
	}
	life := q.life()
	for i := range q.lives {
		if l := &q.lives[i]; !l.Ended.IsZero() && l != life {
			y.Past = append(y.Past, pastRow(l))
		}
	}
	switch {
	case q.standing != nil:
		y.Verdict = view.VerdictBanned
		q.banned(&y, life)
	case q.spared != "":
		y.Verdict = view.VerdictSpared
		if q.ignored {
			q.rules(&y, "IGNORE_FILE")
		}
	case q.source != nil || len(q.lives)+len(q.recent) > 0:
		y.Verdict = view.VerdictSeen
		q.seen(&y)
	}
	if len(y.Packets) == 0 {
		q.packets(&y, q.recent, nil)
	}
	return y
}

// life is what is kept of the ban that stands; nil: nothing.
func (q *inquiry) life() *store.Life {
	for i := range q.lives {
		if l := &q.lives[i]; q.standing != nil && l.Ended.IsZero() && l.Prefix == q.standing.Ban.Prefix {
			return l
		}
	}
	return nil
}

// banned says how the ban that stands came about.
func (q *inquiry) banned(y *view.Why, life *store.Life) {
	b := &q.standing.Ban
	y.Ban = &view.PastBan{Ban: banRow(q.standing), By: b.By}
	var found detect.Found
	packets := q.recent
	if life != nil {
		found = life.Found
		if len(life.Packets) > 0 {
			packets = life.Packets
		}
	}
	y.Summary = did(b, &found)
	if b.By != "" {
		y.Arithmetic = append(y.Arithmetic, asOrdered(b))
		return // what it did besides had no part in it
	}
	q.packets(y, packets, b)
	if b.Port == 0 && found.Kind == detect.KindNone && len(y.Packets) == 0 {
		return // taken over from a run that has left no more than the ban
	}
	q.rules(y, q.led(b, &found)...)
	if !b.Until.IsZero() {
		y.Arithmetic = append(y.Arithmetic, reckon(&q.policy, b))
	}
	if found.Kind != detect.KindNone {
		y.Arithmetic = append(y.Arithmetic, score(&found))
	}
	if !b.Prefix.IsSingleIP() {
		y.Arithmetic = append(y.Arithmetic, fmt.Sprintf("all of %s: one host may have every address of it, and more of them were banned", b.Prefix))
	}
}

// did is in words what led to b.
func did(b *respond.Ban, found *detect.Found) string {
	switch {
	case b.By != "":
		return fmt.Sprintf("asked for by %s: %s", b.By, b.Reason)
	case found.Kind != detect.KindNone:
		return "a " + scanWords(found) + "; " + proof(b)
	case b.Kind != "" && strings.HasPrefix(b.Reason, b.Kind+" to "):
		return "it sent " + b.Reason
	}
	return b.Reason
}

// proof is how sure it is who it was.
func proof(b *respond.Ban) string {
	if unverified(b) {
		return "unverified: the packets may be somebody else's"
	}
	return "verified: it completed a handshake"
}

// asOrdered is the length of a ban that a person asked for.
func asOrdered(b *respond.Ban) string {
	if b.Until.IsZero() {
		return "it has no end, as was asked for"
	}
	return fmt.Sprintf("%s, as was asked for", config.ShowTime(b.Until.Sub(b.Since).Round(time.Second)))
}

// led are the settings that led to b, in the order of the reasoning.
func (q *inquiry) led(b *respond.Ban, found *detect.Found) []string {
	keys := []string{"SCAN_TRIGGER", "BLOCK_TCP"}
	if found.Kind != detect.KindNone {
		keys[0] = "SCAN_DETECT"
	}
	if b.Proto == decode.ProtoUDP {
		keys[1] = "BLOCK_UDP"
	}
	keys = append(keys, "BLOCK_METHOD")
	if !unverified(b) {
		return append(keys, "BAN_TIME", "BAN_TIME_FACTOR", "BAN_TIME_MAX")
	}
	return append(keys, "BLOCK_EVIDENCE", "BAN_TIME_UNVERIFIED", "BAN_TIME_FACTOR", "BAN_TIME")
}

// seen says why somebody is not banned.
func (q *inquiry) seen(y *view.Why) {
	if s := q.source; s != nil && s.Scan.Kind != detect.KindNone {
		y.Summary = "a " + scanWords(&s.Scan)
		y.Arithmetic = append(y.Arithmetic, score(&s.Scan))
	}
	if len(q.lives) > 0 {
		l := &q.lives[0]
		y.Summary = did(&l.Ban, &l.Found)
		q.packets(y, l.Packets, &l.Ban)
		return
	}
	tcp, udp := false, false
	for i := range q.recent {
		tcp = tcp || q.recent[i].Proto == decode.ProtoTCP
		udp = udp || q.recent[i].Proto == decode.ProtoUDP
	}
	if tcp || !udp {
		q.rules(y, "BLOCK_TCP")
	}
	if udp {
		q.rules(y, "BLOCK_UDP")
	}
	if q.conf.ScanTrigger > 1 {
		q.rules(y, "SCAN_TRIGGER")
	}
}

// rules adds settings and where they were made.
func (q *inquiry) rules(y *view.Why, keys ...string) {
	for _, key := range keys {
		where := "default"
		if n := q.conf.Line(key); n > 0 {
			where = fmt.Sprintf("%s:%d", q.conf.Path, n)
			if q.conf.Path == "" {
				where = "built-in"
			}
		}
		y.Rules = append(y.Rules, view.Rule{Key: key, Value: cmp.Or(q.conf.Value(key), `""`), Where: where})
	}
}

// packets adds what is kept of packets, oldest first, with what came of each. b is the
// ban that they led to; nil: none did.
func (q *inquiry) packets(y *view.Why, kept []store.Packet, b *respond.Ban) {
	kept = slices.Clone(kept)
	slices.SortStableFunc(kept, func(a, b store.Packet) int { return cmp.Compare(a.Time, b.Time) })
	decisive := -1
	for i := range kept {
		p := &kept[i]
		if b != nil && p.Time <= b.Since.UnixNano() && p.Proto == b.Proto && p.DstPort == b.Port {
			decisive = i
		}
	}
	for i := range kept {
		p := &kept[i]
		out := view.Packet{
			Time: time.Unix(0, p.Time).UTC(), Source: p.Src, SourcePort: p.SrcPort, Destination: p.Dst, DestinationPort: p.DstPort,
			Protocol: view.Proto(p.Proto), Kind: p.Kind.String(), TTL: p.TTL,
		}
		if p.Proto == decode.ProtoTCP {
			out.Flags, out.Seq, out.Ack, out.Window = view.Flags(p.Flags), p.Seq, p.Ack, p.Window
		}
		if p.Src.Is4() {
			out.IPID = p.IPID
		}
		if p.IfIndex != 0 {
			out.Interface = q.interfaceName(p.IfIndex)
		}
		out.Text = q.cameOf(p, i == decisive, b)
		y.Packets = append(y.Packets, out)
	}
}

// cameOf is what came of a packet.
func (q *inquiry) cameOf(p *store.Packet, decisive bool, b *respond.Ban) string {
	var words []string
	traps := q.tcp
	if p.Proto == decode.ProtoUDP {
		traps = q.udp
	}
	if (p.Proto == decode.ProtoTCP || p.Proto == decode.ProtoUDP) && traps.Has(p.DstPort) {
		words = append(words, "trap port")
	}
	if p.Verified {
		words = append(words, "handshake completed: the address is not forged")
	}
	switch {
	case decisive:
		words = append(words, "the ban began with it")
	case b == nil:
		words = append(words, "written down")
	case p.Time <= b.Since.UnixNano():
		words = append(words, "counted")
	default:
		words = append(words, "came while it was banned")
	}
	return strings.Join(words, "; ")
}
