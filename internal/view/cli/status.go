package cli

import (
	"bufio"
	"fmt"
	"strings"
	"time"

	"portsentry/internal/view"
)

const labels = 10 // columns of the labels on the left

// writeStatus writes st for a person: the first line answers the question, then
// comes what is wrong, then the rest.
func writeStatus(w *bufio.Writer, st *view.Status, now time.Time, width int) {
	wrapped(w, "", 0, view.Printable(headline(st, now)), width)
	for _, p := range st.Problems {
		wrapped(w, "problem", labels, view.Printable(p), width)
	}
	var losses, counts []view.Counter
	for _, c := range st.Counters {
		switch {
		case c.Value == 0: // --json has them
		case c.Loss:
			losses = append(losses, c)
		default:
			counts = append(counts, c)
		}
	}
	if len(losses) == 0 {
		wrapped(w, "lost", labels, "nothing", width)
	}
	writeCounters(w, "lost", losses, width)
	if st.Horizon > 0 {
		slowest := "without traps too: five ports, one in " + view.Span(time.Duration(st.Horizon*float64(time.Second))) + " at the slowest"
		wrapped(w, "scans", labels, slowest, width)
	}
	wrapped(w, "answer", labels, view.Printable(answer(st)), width)
	wrapped(w, "bans", labels, view.Grouped(uint64(max(st.Bans, 0)))+" in force", width)
	if st.Checked != nil && st.CheckedBans > 0 {
		wrapped(w, "enforced", labels, inKernel(st, now), width)
	}
	writeCounters(w, "counted", counts, width)
	if len(counts) == 0 {
		wrapped(w, "counted", labels, "nothing yet", width)
	}
	wrapped(w, "config", labels, view.Printable(st.Config+"; portsentry "+st.Version), width)
	for _, l := range st.Lacks {
		wrapped(w, "sandbox", labels, view.Printable("without a part: "+l), width)
	}
	health := "ok"
	switch n := len(st.Problems) + len(losses); n {
	case 0:
	case 1:
		health = "1 thing above wants a look"
	default:
		health = fmt.Sprintf("%d things above want a look", n)
	}
	wrapped(w, "health", labels, health, width)
}

func headline(st *view.Status, now time.Time) string {
	watching := make([]string, 0, len(st.Watching))
	for _, x := range st.Watching {
		how := x.How
		if x.Why != "" {
			how += ": " + x.Why
		}
		watching = append(watching, x.Interface+" ("+how+")")
	}
	what := "; watching " + strings.Join(watching, ", ")
	if len(watching) == 0 {
		what = ", but watching no interface"
	}
	return fmt.Sprintf("active for %s%s; %s TCP, %s UDP trap ports",
		view.Span(now.Sub(st.Started)), what, view.Grouped(uint64(max(st.TCPPorts, 0))), view.Grouped(uint64(max(st.UDPPorts, 0))))
}

// answer is what a probe gets.
func answer(st *view.Status) string {
	if st.BlockTCP == 0 && st.BlockUDP == 0 {
		return "log only (BLOCK_TCP=0, BLOCK_UDP=0)"
	}
	by := "nothing"
	if len(st.Methods) > 0 {
		by = strings.Join(st.Methods, ", ")
		if len(st.StandBy) > 0 {
			by += " (on standby: " + strings.Join(st.StandBy, ", ") + ")"
		}
	}
	return fmt.Sprintf("TCP: %s (BLOCK_TCP=%d), UDP: %s (BLOCK_UDP=%d); enforced by %s",
		blockWord(st.BlockTCP), st.BlockTCP, blockWord(st.BlockUDP), st.BlockUDP, by)
}

// inKernel says what the kernel had of the bans when it was asked last.
func inKernel(st *view.Status, now time.Time) string {
	return fmt.Sprintf("%s of %s %s in the kernel, last checked %s ago", view.Grouped(uint64(max(st.Enforced, 0))),
		view.Grouped(uint64(st.CheckedBans)), view.Plural(st.CheckedBans, "ban"), view.Span(now.Sub(*st.Checked)))
}

func blockWord(block int) string {
	switch block {
	case 0:
		return "log only"
	case 1:
		return "ban"
	}
	return "command"
}

// writeCounters writes numbers below each other, each with its meaning.
func writeCounters(w *bufio.Writer, label string, counters []view.Counter, width int) {
	digits := 0
	for _, c := range counters {
		digits = max(digits, len(view.Grouped(c.Value)))
	}
	for _, c := range counters {
		left := fmt.Sprintf("%-*s%*s", labels, label, digits, view.Grouped(c.Value))
		wrapped(w, left, labels+digits+2, view.Printable(c.Help), width)
		label = ""
	}
}
