package log

import (
	"net/netip"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// actionsOf writes the actions of r and reports whether any failed.
func (w *Writer) actionsOf(r *store.Record) (failed bool) {
	for i := range r.Outcome.Actions {
		a := &r.Outcome.Actions[i]
		w.actionText(r.Verdict.Sighting.Src, a)
		failed = failed || a.Err != nil
	}
	return failed
}

// alreadyBlocked has a dot and no name in the classic mode of 1.x alone.
func (w *Writer) alreadyBlocked(r *store.Record) {
	b := append(w.begin(), "attackalert: Host: "...)
	if s := &r.Verdict.Sighting; w.o.Format == config.Log1x && s.Kind == detect.KindConnect {
		b = append(appendAddr(b, s.Src), " is already blocked. Ignoring"...)
	} else {
		b = append(appendHost(b, r), " is already blocked Ignoring"...)
	}
	w.end(levelNotice, b)
}

// actionText writes one action in the words that both dialects share.
func (w *Writer) actionText(host netip.Addr, a *respond.Action) {
	defer w.off(w.on(eventAction, w.topic))
	switch {
	case a.Err != nil:
		w.actionFailed(host, a)
	case a.Skipped:
		w.actionSkipped(host, a)
	default:
		before, after, quote := doneWords(a.Step)
		b := append(w.begin(), before...)
		b = appendAddr(b, host)
		b = append(b, after...)
		if quote {
			b = append(b, '"')
		}
		b = append(b, a.Text...)
		if quote {
			b = append(b, '"')
		}
		w.end(levelNotice, b)
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
	l := levelError
	if w.o.Format == config.Log1x {
		l = levelNotice
		w.failure1x(host, a)
	}
	b := append(w.begin(), "adminalert: "...)
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
	w.end(l, b)
}

// actionSkipped says why nothing was done, unless there was nothing to undo.
func (w *Writer) actionSkipped(host netip.Addr, a *respond.Action) {
	switch a.Step {
	case respond.StepNative: // a dry run
		b := appendAddr(append(w.begin(), "adminalert: Host "...), host)
		b = append(b, " would be blocked via "...)
		w.end(levelNotice, append(b, a.Text...))
	case respond.StepHostsDeny:
		b := append(w.begin(), w.begins("Host ")...)
		b = appendAddr(append(b, "Host "...), host)
		w.end(levelNotice, append(b, " already in hosts.deny file, skipping."...))
	case respond.StepRoute, respond.StepCommand:
		b := append(w.begin(), "adminalert: "...)
		b = append(b, a.Step.String()...)
		b = append(b, " not run for "...)
		b = appendAddr(b, host)
		if host.Is6() {
			b = append(b, ": no command is set for an IPv6 source"...)
		} else {
			b = append(b, ": no command is set for an IPv4 source"...)
		}
		w.end(levelNotice, b)
	}
}

// CannotOpen writes what 1.x said of one of its files, "history" or "blocked".
// Why, and what follows from it, is for Error to say.
func (w *Writer) CannotOpen(file, path string) {
	if w.o.Format == config.Log1x {
		w.Notice("adminalert: ERROR: Cannot open " + file + " file: " + path + ".")
	}
}
