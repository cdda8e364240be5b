package changes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// TestRangesOfRoutes: a blackhole leaves out nobody, so it cuts off neither this host nor
// whom to spare.
func TestRangesOfRoutes(t *testing.T) {
	ignore := filepath.Join(t.TempDir(), "ignore")
	check(t, os.WriteFile(ignore, nil, 0o600))
	s := newStage(t, with(with(logOnly, "BLOCK_METHOD", "route"), "IGNORE_FILE", ignore))
	blackholes := func() string { return lab.Command(t, s.lab.Host.NS, "ip", "route", "show", "proto", "112") }
	lab.Command(t, s.lab.Host.NS, "ip", "route", "add", "default", "via", lab.ScannerAddrs[0].Addr().String())
	const spared = "a gateway of this host; --force"
	lab.Wait(t, patience, "the gateway is known", func() bool {
		_, err := s.Command(t.Context(), "ban", "10.77.0.2", "--for", "1s")
		return err != nil && strings.Contains(err.Error(), spared)
	})
	s.refused("it holds an address of this host", "ban", "10.77.0.0/16", "--force") // and the gateway
	for _, gateway := range []string{"10.77.0.2", "10.77.0.2/31"} {
		s.refused("the default gateway of this host", "ban", gateway, "--force")
	}
	lab.Wait(t, patience, "it is spared as before", func() bool {
		_, err := s.Command(t.Context(), "ban", "10.77.0.2", "--for", "1s")
		return err != nil && strings.Contains(err.Error(), spared)
	})
	if got := blackholes(); got != "" || len(s.bans().Bans) > 0 {
		t.Errorf("%s, %+v", got, s.bans())
	}

	s.ask("ban", "198.51.100.0/24")
	s.ask("ban", "192.0.2.0/24")
	check(t, os.WriteFile(ignore, []byte("198.51.100.7\n"), 0o600))
	s.said("198.51.100.0/24 is no longer banned: in the ignore file")
	if got := blackholes(); strings.Contains(got, "198.51.100.") || !strings.Contains(got, "192.0.2.0/24") || len(s.bans().Bans) != 1 {
		t.Errorf("%s, %+v", got, s.bans())
	}
}
