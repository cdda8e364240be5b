package respond

import (
	"time"

	"portsentry/internal/judge"
)

// nativeText is the native ban in words.
func nativeText(m Method, b *Ban, length time.Duration) string {
	what := map[judge.Strength]string{
		judge.Limited: "ports without a service", judge.Soft: "new connections", judge.Full: "everything",
	}[b.Strength]
	if s, ok := m.(Stopper); ok {
		what = s.Stops(b)
	}
	if b.Scope != judge.AllProtocols {
		what += ", " + b.Scope.String() + " only"
	}
	if !b.Prefix.IsSingleIP() {
		what += ", all of " + b.Prefix.String()
	}
	return m.Name() + " for " + length.String() + " (" + what + "; " + evidenceWord(b.Evidence) + ")"
}

func evidenceWord(e judge.Evidence) string {
	if e >= judge.E2 {
		return "verified"
	}
	return "unverified"
}
