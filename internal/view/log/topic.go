package log

import (
	"net/netip"
	"strconv"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// event is what a line is about: the word of JSON, and a field of the journal.
type event uint8

const (
	eventNotice event = iota // something about ourselves
	eventSighting
	eventScan
	eventAction
	eventBan
	eventEnd
	eventChange
	eventProblem
)

func (e event) word() string {
	return [...]string{"notice", "sighting", "scan", "action", "ban", "end", "change", "problem"}[e]
}

// id is the MESSAGE_ID of the journal: made up once with systemd-id128 new, and
// the same for ever.
func (e event) id() string {
	return [...]string{
		eventNotice:   "9a7a9df2c0554324b6d2a060d43dcdd5",
		eventSighting: "b0936e16216b4dcda1e8c870e23c4b60",
		eventScan:     "e582bd3fda014aa7bcfa5955b3617ef9",
		eventAction:   "718b1d11562c4b7a8160774681caff99",
		eventBan:      "8ba539bb383349f8a672b8dce90d1e3f",
		eventEnd:      "c0cd1d967744473ba6beca3d9b5b16c4",
		eventChange:   "14172b33344d4fb687dcc89615d5cbea",
		eventProblem:  "7e46246fb880464eb6de54aea58db745",
	}[e]
}

// topic is what outputs with fields are told of a line beside its text. Zero
// fields are left out.
type topic struct {
	source   netip.Addr
	proto    uint8
	port     uint16
	kind     detect.Kind
	evidence judge.Evidence
	ban      netip.Prefix
}

func topicOf(r *store.Record) topic {
	s := &r.Verdict.Sighting
	t := topic{source: s.Src, proto: s.Proto, port: s.DstPort, kind: s.Kind, evidence: r.Verdict.Evidence}
	if bannedNow(r) {
		t.ban = r.Verdict.Prefix
	}
	return t
}

// subject is what lines are about.
type subject struct {
	event event
	topic topic
}

// on says what lines are about from here on; off takes back what it returns. Calls
// hold w.mu.
func (w *Writer) on(e event, t topic) (was subject) {
	was = w.subject
	w.subject = subject{e, t}
	return was
}

func (w *Writer) off(was subject) { w.subject = was }

// between stands for the newline between two fields until a line is sent: no text of
// ours has this byte (clean, appendString).
const between = '\x1f'

// appendFields appends what a line for the journal begins with; its text follows.
// The names are those of systemd.journal-fields(7) and, with a prefix, our own.
func (w *Writer) appendFields(b []byte, l level) []byte {
	s := &w.subject
	b = appendField(b, "PRIORITY=", [...]string{levelError: "3", levelNotice: "5", levelInfo: "6", levelDebug: "7"}[l])
	b = appendField(b, "SYSLOG_IDENTIFIER=", "portsentry")
	b = appendField(b, "MESSAGE_ID=", s.event.id())
	b = appendField(b, "PORTSENTRY_EVENT=", s.event.word())
	t := &s.topic
	if t.source.IsValid() {
		b = append(appendAddr(append(b, "PORTSENTRY_SOURCE="...), t.source), between)
		if t.proto != 0 {
			b = appendField(b, "PORTSENTRY_PROTOCOL=", view.Proto(t.proto))
		}
	}
	if t.proto == decode.ProtoTCP || t.proto == decode.ProtoUDP || t.port != 0 {
		b = append(strconv.AppendUint(append(b, "PORTSENTRY_PORT="...), uint64(t.port), 10), between)
	}
	if t.kind != detect.KindNone {
		b = appendField(b, "PORTSENTRY_KIND=", t.kind.String())
	}
	if t.evidence != judge.E0 {
		b = appendField(b, "PORTSENTRY_EVIDENCE=", t.evidence.String())
	}
	if t.ban.IsValid() {
		b = append(t.ban.AppendTo(append(b, "PORTSENTRY_BAN="...)), between)
	}
	return append(b, "MESSAGE="...)
}

func appendField(b []byte, name, value string) []byte {
	return append(append(append(b, name...), value...), between)
}

// banTopic is what is told of a ban.
func banTopic(b *respond.Ban) topic {
	return topic{source: b.Prefix.Addr(), proto: b.Proto, port: b.Port, kind: detect.ParseKind(b.Kind), evidence: b.Evidence, ban: b.Prefix}
}
