package full

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/detection.md anew")

// calledFalsely is the exact share of sources that are taken for scanners, of those
// who turn to n different things and find somebody at each with probability p.
func calledFalsely(n int, p float64) float64 {
	at := map[int64]float64{0: 1} // score in thousandths
	unit := func(x float32) int64 { return int64(math.Round(float64(x) * 1000)) }
	called := 0.0
	for range n {
		next := make(map[int64]float64)
		for score, share := range at {
			next[max(unit(floor), score+unit(success))] += share * p
			if up := score + unit(Step); up >= unit(Threshold) {
				called += share * (1 - p)
			} else {
				next[up] += share * (1 - p)
			}
		}
		at = next
	}
	return called
}

// tables are those of docs/detection.md.
func tables() string {
	var b strings.Builder
	b.WriteString("| what fails | weight | so many decide |\n|---|---|---|\n")
	for _, w := range []struct {
		what string
		w    float64
	}{
		{"a port, an address or a protocol, TCP or refused UDP", plain},
		{"a trap port of the configuration", trap},
		{"a bare ACK, a FIN with ACK, an echo request, a datagram without an answer", half},
		{"one UDP service at further addresses", quarter},
		{"one of the services that have many addresses (HTTP, HTTPS, mail, push, ident), at further ones", eighth},
		{"the same by IPv6", least},
		{"a port that was found open and left half open, of an address or several", eighth},
		{"a bare ACK or FIN with ACK from quite another port than the packet before", eighth},
		{"one service that worms look for or nobody has at strangers', or any by raw SYNs, at addresses anywhere", quarter},
	} {
		fmt.Fprintf(&b, "| %s | %v | %d |\n", w.what, w.w, int(math.Ceil(float64(Threshold)/(float64(Step)*w.w))))
	}
	b.WriteString("\n| finds somebody there | 5 things | 10 | 20 | 50 | 100 |\n|---|---|---|---|---|---|\n")
	for _, p := range []float64{.99, .95, .9, .8, .7} {
		fmt.Fprintf(&b, "| %v %% of the time |", p*100)
		for _, n := range []int{5, 10, 20, 50, 100} {
			if called := calledFalsely(n, p); called < 1e-9 {
				b.WriteString(" never |")
			} else {
				fmt.Fprintf(&b, " %s in a million |", shown(called*1e6))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func shown(x float64) string {
	if x < 1 {
		return fmt.Sprintf("%.1g", x)
	}
	return fmt.Sprintf("%.0f", x)
}

const (
	docs       = "../../../docs/detection.md"
	tableBegin = "<!-- tables: go test ./internal/detect/full -run TestDocs -update -->\n"
	tableEnd   = "<!-- end of tables -->\n"
)

// The tables of the documentation are those of the program.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the tables", docs)
	}
	if *update {
		if err := os.WriteFile(docs, []byte(before+tableBegin+tables()+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != tables() {
		t.Errorf("the tables of %s are old: go test ./internal/detect/full -run TestDocs -update", docs)
	}
}

// Wald's bounds hold for the numbers that the test is built from: a scanner who finds
// somebody once in a hundred is found by his eighth thing 99 times of 100.
func TestPower(t *testing.T) {
	if called := calledFalsely(8, scannerFinds); called < 1-passedOver {
		t.Errorf("%.4f of the scanners are found by their eighth thing", called)
	}
	if called := calledFalsely(5, benignFinds); called > falselyCalled {
		t.Errorf("%.2g of the innocent are taken for scanners by five things", called)
	}
}
