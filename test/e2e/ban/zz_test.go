package ban_test

import ("testing"; "net/netip"; "portsentry/test/lab"; "time"; "portsentry/internal/pktgen")

func TestZZNoCT(t *testing.T) {
	s, _ := house(t)
	d := s.startIn(`exec setpriv --bounding-set -net_admin --inh-caps -net_admin "$@"`, map[string]string{"BLOCK_TCP":"0","BLOCK_UDP":"0"})
	for range 3 { c, _, err := s.dial(nth(clients, 1), published, 3*time.Second); check(t, err); c.Close() }
	s.seen(d)
	st, _ := d.Status(t.Context())
	t.Logf("%q\nproblems %q", d.scans(), st.Problems)
}

func TestZZFlush(t *testing.T) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	a, b := nth(clients, 1), nth(clients, 2)
	s.forge(s.tcp(a, 40000, trap, pktgen.SYN))
	d.waitBan(a)
	lab.Command(t, s.Host.NS, "nft", "flush", "ruleset")
	start := time.Now()
	<-time.After(time.Second)
	s.forge(s.tcp(b, 40000, trap, pktgen.SYN))
	s.seen(d)
	st, _ := d.Status(t.Context())
	t.Logf("table %v problems %q bans %d", s.hasTable(), st.Problems, len(d.bans()))
	t.Log(d.from(b))
	<-time.After(6*time.Second)
	st, _ = d.Status(t.Context())
	t.Logf("after %v table %v problems %q bans %d", time.Since(start), s.hasTable(), st.Problems, len(d.bans()))
	t.Log(read(string(d.Err)))
	_ = netip.Addr{}
}
