package kinds_test

import (
	"slices"
	"testing"

	"portsentry/test/lab"
)

// nmap -D sends each probe in ten names: one campaign of ten, with the scanner in it.
func TestDecoys(t *testing.T) {
	lab.NeedProgram(t, "nmap", "nmap")
	t.Parallel()
	for _, r := range []struct {
		name, args string
		ports      int
	}{
		{"-sS", "-sS -p1-40", 40},
		{"-sF", "-sF -p1-40", 40},
		{"-sA", "-sA -p1-40", 40},
		{"-sM", "-sM -p1-40", 40},
		{"-sU", "-sU -p49-58", 10},
		{"-sY", "-sY -p1-30", 30},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.command(s.scanner, slices.Concat(words("timeout 60 nmap -n -Pn -D RND:9,ME "+r.args), words(host4))...)
			scans, campaigns, notices := replay(t, s.eye.capture(s.scanner))
			me := s.scanner.Addr4().String()
			if len(campaigns) != 1 || len(notices) != 0 {
				t.Fatalf("campaigns %+v, notices %+v; want one campaign", campaigns, notices)
			}
			c := campaigns[0]
			if c.What != "decoys" || c.Count != 10 || len(c.Members) != 10 || !slices.Contains(c.Members, me) || c.Real != "" || c.Ports != r.ports {
				t.Errorf("campaign %+v; want decoys, ten with %s, nobody proved, %d ports", c, me, r.ports)
			}
			if len(scans) != 10 {
				t.Errorf("%d scans; want one of each name", len(scans))
			}
			for _, e := range scans {
				if e.Campaign != c.Campaign || !slices.Contains(c.Members, e.Source) || e.Direction != "vertical" || e.Ports != r.ports {
					t.Errorf("scan %+v; want a vertical one of %d ports, of campaign %s", e, r.ports, c.Campaign)
				}
			}
		})
	}
}

// Of ten names the one that goes on to hear what speaks at the open ports is real.
func TestDecoysUnveiled(t *testing.T) {
	lab.NeedProgram(t, "nmap", "nmap")
	t.Parallel()
	s := newStage(t)
	s.command(s.scanner, words("timeout 60 nmap -n -Pn -sS -sV --version-light -D RND:9,ME -p20-60 "+host4)...)
	_, campaigns, _ := replay(t, s.eye.capture(s.scanner))
	if me := s.scanner.Addr4().String(); len(campaigns) != 1 || campaigns[0].Count != 10 || campaigns[0].Real != me {
		t.Errorf("campaigns %+v; want one of ten, %s the real one", campaigns, me)
	}
}
