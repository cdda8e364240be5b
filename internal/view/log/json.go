package log

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// rfc3339 with all nine digits: lines sort as text.
const rfc3339 = "2006-01-02T15:04:05.000000000Z07:00"

// scanJSON writes the sighting, then its actions. docs/json.md is the contract.
func (w *Writer) scanJSON(r *store.Record) {
	v := &r.Verdict
	s := &v.Sighting
	f := r.Flags()
	b := append(w.begin(), `{"event":"sighting","time":"`...)
	b = time.Unix(0, s.Time).UTC().AppendFormat(b, rfc3339)
	b = append(b, `","source":"`...)
	b = appendAddr(b, s.Src)
	b = appendNumber(b, `","source_port":`, uint64(s.SrcPort))
	b = append(b, `,"destination":"`...)
	b = appendAddr(b, s.Dst)
	b = appendNumber(b, `","destination_port":`, uint64(s.DstPort))
	if name := store.HostName(r.Name); name != "" {
		b = appendString(append(b, `,"name":`...), name)
	}
	if w.InterfaceName != nil && s.IfIndex != 0 {
		if name := w.InterfaceName(s.IfIndex); name != "" {
			b = appendString(append(b, `,"interface":`...), name)
		}
	}
	b = append(b, `,"protocol":`...)
	b = appendString(b, view.Proto(s.Proto))
	b = append(b, `,"kind":"`...)
	b = append(b, s.Kind.String()...)
	b = append(b, `","type":"`...)
	b = append(b, detect.TypeText(s.Kind, s.Flags)...)
	b = append(b, '"')
	if s.Proto == decode.ProtoTCP {
		b = appendFlags(append(b, `,"flags":"`...), s.Flags)
		b = append(b, '"')
	}
	b = appendNumber(b, `,"ttl":`, uint64(s.TTL))
	b = appendTri(b, `,"ip_options":`, s.IPOptions)
	b = appendBool(b, `,"fragmented":`, s.Fragmented)
	if s.BadChecksum {
		b = append(b, `,"bad_checksum":true`...)
	}
	b = appendNumber(b, `,"count":`, uint64(s.Count))
	b = appendTri(b, `,"ignored":`, f.Ignored)
	b = appendTri(b, `,"triggered":`, f.Triggered)
	b = appendTri(b, `,"noblock":`, f.NoBlock)
	b = appendTri(b, `,"blocked":`, f.Blocked)
	b = appendBool(b, `,"already_blocked":`, f.Blocked == decode.Yes && r.Outcome.Already)
	b = append(b, `,"evidence":"`...)
	b = append(b, v.Evidence.String()...)
	b = append(b, `","strength":"`...)
	b = append(b, v.Strength.String()...)
	b = append(b, '"')
	if v.Spared != judge.NotSpared {
		b = appendString(append(b, `,"spared":`...), v.Spared.String())
	}
	b = appendBool(b, `,"peer":`, v.Peer)
	b = appendString(append(b, `,"reason":`...), v.Reason)
	if bannedNow(r) {
		b = append(b, `,"ban":{"prefix":"`...)
		b = v.Prefix.AppendTo(b)
		b = append(b, `","scope":"`...)
		b = append(b, v.Scope.String()...)
		b = appendNumber(b, `","length_s":`, uint64(v.Length/time.Second))
		b = append(b, '}')
	}
	w.emit(levelNotice, append(b, '}'))
	if s.Scan.Kind != detect.KindNone {
		w.foundJSON(r)
	}
	for i := range r.Outcome.Actions {
		w.actionJSON(s.Src, &r.Outcome.Actions[i])
	}
}

// foundJSON writes what the source was found to do.
func (w *Writer) foundJSON(r *store.Record) {
	s := &r.Verdict.Sighting
	defer w.off(w.on(eventScan, w.topic))
	w.emit(levelNotice, appendFound(w.begin(), s.Src, &s.Scan, s.Time, r.Verdict.Evidence, r.Verdict.Reason))
}

// Shared writes what a source has done that has its part in a sweep which many share
// out. There is no packet to show for it but those that came before, so JSON alone has a
// line for it, and nothing is done about it.
func (w *Writer) Shared(s *detect.Scan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.o.Format != config.LogJSON {
		return
	}
	f := detect.FoundBy(s)
	defer w.off(w.on(eventScan, topic{source: s.Source, proto: f.Proto, kind: f.Kind, evidence: judge.E1}))
	w.emit(levelNotice, appendFound(w.begin(), s.Source, &f, s.Last, judge.E1, s.Reason))
	w.flush()
}

func appendFound(b []byte, src netip.Addr, f *detect.Found, last int64, e judge.Evidence, reason string) []byte {
	b = append(b, `{"event":"scan","time":"`...)
	b = time.Unix(0, last).UTC().AppendFormat(b, rfc3339)
	b = append(b, `","source":"`...)
	b = appendAddr(b, src)
	b = append(b, `","kind":"`...)
	b = append(b, f.Kind.String()...)
	b = append(b, `","direction":"`...)
	b = append(b, f.Direction.String()...)
	b = append(b, `","proto":"`...)
	b = append(b, view.Proto(f.Proto)...)
	b = append(b, `","evidence":"`...)
	b = append(b, e.String()...)
	b = append(b, `","first":"`...)
	b = time.Unix(0, f.First).UTC().AppendFormat(b, rfc3339)
	b = append(b, `","last":"`...)
	b = time.Unix(0, last).UTC().AppendFormat(b, rfc3339)
	b = appendNumber(b, `","ports":`, uint64(f.Ports))
	b = appendNumber(b, `,"targets":`, uint64(f.Targets))
	b = appendNumber(b, `,"probes":`, uint64(f.Probes))
	b = append(b, `,"score":`...)
	b = strconv.AppendFloat(b, math.Round(100*float64(f.Score))/100, 'f', -1, 64)
	if f.Tool != "" {
		b = appendString(append(b, `,"tool":`...), f.Tool)
	}
	if f.Campaign != 0 {
		b = append(b, `,"campaign":"`...)
		b = append(fmt.Appendf(b, "%016x", f.Campaign), '"')
	}
	b = appendString(append(b, `,"reason":`...), reason)
	return append(b, '}')
}

// bannedNow reports whether the sighting led to a native ban.
func bannedNow(r *store.Record) bool {
	for i := range r.Outcome.Actions {
		if a := &r.Outcome.Actions[i]; a.Step == respond.StepNative && a.Err == nil && !a.Skipped {
			return true
		}
	}
	return false
}

func (w *Writer) actionJSON(host netip.Addr, a *respond.Action) {
	defer w.off(w.on(eventAction, w.topic))
	b := beginEvent(w.begin(), eventAction)
	b = append(b, `,"host":"`...)
	b = appendAddr(b, host)
	b = append(b, `","step":"`...)
	b = append(b, stepWord(a.Step)...)
	b = appendBool(b, `","ok":`, a.Err == nil)
	b = appendBool(b, `,"skipped":`, a.Skipped)
	b = appendString(append(b, `,"text":`...), a.Text)
	if a.Err != nil {
		b = appendString(append(b, `,"error":`...), a.Err.Error())
	}
	b = append(b, `,"took_ms":`...)
	b = strconv.AppendFloat(b, float64(a.Took.Microseconds())/1000, 'f', -1, 64)
	w.emit(levelNotice, append(b, '}'))
}

// appendNotice appends a notice; state is what we are from here on, "" for no news
// of that.
func appendNotice(b []byte, state, sentence string) []byte {
	b = beginEvent(b, eventNotice)
	if state != "" {
		b = appendString(append(b, `,"state":`...), state)
	}
	b = appendString(append(b, `,"text":`...), sentence)
	return append(b, '}')
}

// beginEvent begins the line of something that has no packet to take its time
// from.
func beginEvent(b []byte, e event) []byte {
	b = append(b, `{"event":"`...)
	b = append(b, e.word()...)
	b = append(b, `","time":"`...)
	b = time.Now().UTC().AppendFormat(b, rfc3339)
	return append(b, '"')
}

// stepWord is the step as JSON has it.
func stepWord(s respond.Step) string {
	switch s {
	case respond.StepNative:
		return "native"
	case respond.StepRoute:
		return "route"
	case respond.StepHostsDeny:
		return "hosts_deny"
	case respond.StepCommand:
		return "command"
	case respond.StepNativeUndo:
		return "native_undo"
	case respond.StepRouteUndo:
		return "route_undo"
	case respond.StepHostsDenyUndo:
		return "hosts_deny_undo"
	}
	return "command_undo"
}

// appendFlags lists TCP flags by name in the order of their bits, joined by
// commas.
func appendFlags(b []byte, flags uint16) []byte {
	first := true
	for i, name := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"} {
		if flags>>i&1 == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, name...)
	}
	return b
}

func appendNumber(b []byte, label string, n uint64) []byte {
	return strconv.AppendUint(append(b, label...), n, 10)
}

func appendBool(b []byte, label string, v bool) []byte {
	return strconv.AppendBool(append(b, label...), v)
}

// appendTri leaves the field out when the answer is missing.
func appendTri(b []byte, label string, t decode.Tri) []byte {
	if t == decode.NotKnown {
		return b
	}
	return appendBool(b, label, t == decode.Yes)
}

// appendString appends s as a JSON string (RFC 8259 section 7) of at most
// maxLine bytes before escaping. Control characters, those of C1 too, are
// escaped: lines are read on terminals. Bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dots := ""
	if len(s) > maxLine {
		s, dots = s[:maxLine-3], "..."
	}
	b = append(b, '"')
	plain := 0 // s[plain:i] needs no escape
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r > 0x9f && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		b = append(b, s[plain:i]...)
		switch {
		case r == utf8.RuneError:
			b = append(b, "\ufffd"...)
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		}
		i += size
		plain = i
	}
	b = append(b, s[plain:]...)
	b = append(b, dots...)
	return append(b, '"')
}
