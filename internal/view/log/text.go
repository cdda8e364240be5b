package log

import (
	"net/netip"
	"strconv"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// scan2x writes the lines of PortSentry 2.x in its order: what was done, then
// the scan line.
func (w *Writer) scan2x(r *store.Record) {
	failed := w.actionsOf(r)
	f := r.Flags()
	switch {
	case f.Blocked == decode.Yes && r.Outcome.Already:
		w.alreadyBlocked(r)
	case failed && f.NoBlock == decode.No && f.Blocked == decode.No:
		b := append(w.errOut.begin(), "attackalert: Error during target dispose "...)
		w.errOut.end(append(appendHost(b, r), '!'))
	}
	w.out.end(store.AppendScanLine(w.out.begin(), r))
}

// scan1x writes the lines of PortSentry 1.x for the stealth modes in its order:
// the alert, then what was done. It had none for sources that it ignored and
// for those below SCAN_TRIGGER.
func (w *Writer) scan1x(r *store.Record) {
	f, s := r.Flags(), &r.Verdict.Sighting
	if f.Ignored != decode.No || f.Triggered != decode.Yes {
		return
	}
	b := append(w.out.begin(), "attackalert: "...)
	switch s.Kind {
	case detect.KindUDP:
		b = append(b, "UDP scan"...)
	case detect.KindNULL:
		b = append(b, ' ') // log watchers have learned the double space
		fallthrough
	default:
		b = append(b, detect.TypeText(s.Kind, s.Flags)...)
	}
	w.out.end(appendPort(appendHost(append(b, " from host: "...), r), s))
	if s.IPOptions == decode.Yes {
		b = appendPort(appendHost(append(w.out.begin(), "attackalert: Packet from host: "...), r), s)
		w.out.end(append(b, " has IP options set (detection avoidance technique)."...))
	}
	switch {
	case r.Verdict.Block == config.BlockNone:
		b = append(w.out.begin(), "attackalert: Ignoring "...)
		b = append(b, store.ProtoName(s.Proto)...)
		w.out.end(append(b, " response per configuration file setting."...))
	case f.Blocked == decode.Yes && r.Outcome.Already:
		w.actionsOf(r)
		w.alreadyBlocked(r)
	case w.actionsOf(r) && f.Blocked == decode.No:
		b = appendHost(append(w.out.begin(), "attackalert: ERROR: Could not block host "...), r)
		if s.Proto == decode.ProtoTCP {
			b = append(b, ' ') // as -stcp wrote it; the UDP modes did without
		}
		w.out.end(append(b, "!!"...))
	}
}

// actionsOf writes the actions of r and reports whether any failed.
func (w *Writer) actionsOf(r *store.Record) (failed bool) {
	for i := range r.Outcome.Actions {
		a := &r.Outcome.Actions[i]
		w.actionText(r.Verdict.Sighting.Src, a)
		failed = failed || a.Err != nil
	}
	return failed
}

func (w *Writer) alreadyBlocked(r *store.Record) {
	b := appendHost(append(w.out.begin(), "attackalert: Host: "...), r)
	w.out.end(append(b, " is already blocked Ignoring"...))
}

// actionText writes one action in the words that both dialects share.
func (w *Writer) actionText(host netip.Addr, a *respond.Action) {
	switch {
	case a.Err != nil:
		w.actionFailed(host, a)
	case a.Skipped:
		w.actionSkipped(host, a)
	default:
		b := w.out.begin()
		before, after, quote := doneWords(a.Step)
		b = append(b, before...)
		b = appendAddr(b, host)
		b = append(b, after...)
		if quote {
			b = append(b, '"')
		}
		b = append(b, a.Text...)
		if quote {
			b = append(b, '"')
		}
		w.out.end(b)
	}
}

// doneWords is the line for a step that worked, around its host; Text follows,
// quoted or not.
func doneWords(s respond.Step) (before, after string, quote bool) {
	switch s {
	case respond.StepNative:
		return "attackalert: Host ", " has been blocked via ", false
	case respond.StepRoute:
		return "attackalert: Host ", " has been blocked via dropped route using command: ", true
	case respond.StepHostsDeny:
		return "attackalert: Host ", " has been blocked via wrappers with string: ", true
	case respond.StepCommand:
		return "attackalert: External command run for host: ", " using command: ", true
	case respond.StepNativeUndo:
		return "adminalert: Host ", " is no longer blocked via ", false
	case respond.StepRouteUndo:
		return "adminalert: Host ", " is no longer blocked via dropped route, using command: ", true
	case respond.StepHostsDenyUndo:
		return "adminalert: Host ", " is no longer blocked via wrappers with string: ", true
	}
	return "adminalert: External undo command run for host: ", " using command: ", true
}

// actionFailed says what failed and how. PortSentry called it blocked.
func (w *Writer) actionFailed(host netip.Addr, a *respond.Action) {
	out := &w.errOut
	if w.format == config.Log1x {
		out = &w.out
		if old := failure1x(a.Step); old != "" {
			out.end(appendAddr(append(out.begin(), old...), host))
		}
	}
	b := append(out.begin(), "adminalert: "...)
	b = append(b, a.Step.String()...)
	if a.Step == respond.StepNative {
		b = append(b, " ban"...)
	}
	b = append(b, " failed for "...)
	b = appendAddr(b, host)
	b = append(b, ": "...)
	b = append(b, a.Err.Error()...)
	if a.Text != "" {
		b = append(b, `: "`...)
		b = append(b, a.Text...)
		b = append(b, '"')
	}
	out.end(b)
}

// failure1x is what 1.x said, up to the address.
func failure1x(s respond.Step) string {
	switch s {
	case respond.StepRoute:
		return "adminalert: ERROR: There was an error trying to block host (exec fail) "
	case respond.StepHostsDeny:
		return "securityalert: ERROR: There was an error trying to block host "
	case respond.StepCommand:
		return "adminalert: ERROR: There was an error trying to run command (exec fail) "
	}
	return ""
}

// actionSkipped says why nothing was done, unless there was nothing to undo.
func (w *Writer) actionSkipped(host netip.Addr, a *respond.Action) {
	switch a.Step {
	case respond.StepHostsDeny:
		b := appendAddr(append(w.out.begin(), "Host "...), host)
		w.out.end(append(b, " already in hosts.deny file, skipping."...))
	case respond.StepRoute, respond.StepCommand:
		b := append(w.out.begin(), "adminalert: "...)
		b = append(b, a.Step.String()...)
		b = append(b, " not run for "...)
		b = appendAddr(b, host)
		if host.Is6() {
			b = append(b, ": no command is set for an IPv6 source"...)
		} else {
			b = append(b, ": no command is set for an IPv4 source"...)
		}
		w.out.end(b)
	}
}

// appendHost appends "name/address"; without a name, the address twice.
func appendHost(b []byte, r *store.Record) []byte {
	if r.Name != "" {
		b = append(b, r.Name...)
	} else {
		b = appendAddr(b, r.Verdict.Sighting.Src)
	}
	return appendAddr(append(b, '/'), r.Verdict.Sighting.Src)
}

func appendPort(b []byte, s *detect.Sighting) []byte {
	b = append(append(b, " to "...), store.ProtoName(s.Proto)...)
	return strconv.AppendUint(append(b, " port: "...), uint64(s.DstPort), 10)
}

func appendAddr(b []byte, a netip.Addr) []byte { return a.WithZone("").AppendTo(b) }
