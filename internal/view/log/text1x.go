package log

import (
	"errors"
	"net/netip"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// hostsDeny is the path that 1.x was built with, and ours is.
const hostsDeny = "/etc/hosts.deny"

// scan1x writes the lines of PortSentry 1.x in its order: the alert, then what
// was done. It had none for sources that it ignored and for those below
// SCAN_TRIGGER. Its classic mode (-tcp, -udp) worded some lines in its own way.
func (w *Writer) scan1x(r *store.Record) {
	f, s := r.Flags(), &r.Verdict.Sighting
	if f.Ignored != decode.No || f.Triggered != decode.Yes {
		return
	}
	w.alert1x(r)
	switch {
	case r.Verdict.Block == config.BlockNone:
		w.say(levelNotice, "attackalert: Ignoring ", store.ProtoName(s.Proto), " response per configuration file setting.")
	case f.Blocked == decode.Yes && r.Outcome.Already:
		w.actionsOf(r)
		w.alreadyBlocked(r)
	case w.actionsOf(r) && f.Blocked == decode.No:
		b := append(w.begin(), "attackalert: ERROR: Could not block host "...)
		switch {
		case s.Kind == detect.KindConnect:
			b = append(appendAddr(b, s.Src), " !!"...)
		case s.Proto == decode.ProtoTCP && w.o.Modes.TCP != config.Advanced: // -stcp
			b = append(appendHost(b, r), " !!"...)
		default:
			b = append(appendHost(b, r), "!!"...)
		}
		w.end(levelNotice, b)
	}
}

// alert1x writes what was seen.
func (w *Writer) alert1x(r *store.Record) {
	s := &r.Verdict.Sighting
	b := append(w.begin(), "attackalert: "...)
	switch s.Kind {
	case detect.KindUDP:
		b = append(b, "UDP scan"...)
	case detect.KindNULL:
		b = append(b, ' ') // log watchers have learned the double space
		fallthrough
	default:
		b = append(b, detect.TypeText(s.Kind, s.Flags)...)
	}
	w.end(levelNotice, appendPort(appendHost(append(b, " from host: "...), r), s))
	if s.IPOptions == decode.Yes {
		b = appendPort(appendHost(append(w.begin(), "attackalert: Packet from host: "...), r), s)
		w.end(levelNotice, append(b, " has IP options set (detection avoidance technique)."...))
	}
}

func appendPort(b []byte, s *detect.Sighting) []byte {
	b = append(append(b, " to "...), store.ProtoName(s.Proto)...)
	return appendNumber(b, " port: ", uint64(s.DstPort))
}

// failure1x writes what 1.x said of a step that failed, before we say why.
func (w *Writer) failure1x(host netip.Addr, a *respond.Action) {
	why := "(exec fail) "
	if errors.Is(a.Err, respond.ErrBusy) {
		why = "(system fail) " // it did not even begin
	}
	var what string
	switch a.Step {
	case respond.StepRoute:
		what = "adminalert: ERROR: There was an error trying to block host " + why
	case respond.StepHostsDeny:
		w.say(levelNotice, "adminalert: cannot open hosts.deny file: ", hostsDeny, " for blocking.")
		what = "securityalert: ERROR: There was an error trying to block host "
	case respond.StepCommand:
		what = "adminalert: ERROR: There was an error trying to run command " + why
	default:
		return
	}
	w.end(levelNotice, appendAddr(append(w.begin(), what...), host))
}
