package config

import (
	"slices"
	"strings"
	"testing"
)

func TestModesFromWords(t *testing.T) {
	for _, tt := range []struct {
		words   string
		want    Modes
		mistake string
	}{
		{"", Modes{}, ""},
		{"tcp udp", Modes{Connect, Connect}, ""},
		{"sudp", Modes{Unwatched, Stealth}, ""},
		{"atcp stcp", Modes{}, "atcp and stcp: one mode for TCP only; keep one"},
		{"audp tcp udp", Modes{}, "audp and udp: one mode for UDP only; keep one"},
		{"audp atcp audp", Modes{Advanced, Advanced}, ""},
		{"stcp stpc", Modes{}, `"stpc": must be tcp, udp, stcp, sudp, atcp or audp; did you mean stcp?`},
		{"-tcp", Modes{}, `"-tcp": must be tcp, udp, stcp, sudp, atcp or audp; did you mean tcp?`},
		{"connect", Modes{}, `"connect": must be tcp, udp, stcp, sudp, atcp or audp`},
	} {
		m, err := ModesFromWords(strings.Fields(tt.words))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if m != tt.want || got != tt.mistake {
			t.Errorf("%q: %v, %s; want %v, %s", tt.words, m, got, tt.want, tt.mistake)
		}
	}
	for _, w := range modeWords() {
		m, err := ModesFromWords([]string{w})
		if err != nil || m.TCP.Word(Dialect1x, false) != w && m.UDP.Word(Dialect1x, true) != w {
			t.Errorf("%s: %v, %v", w, m, err)
		}
	}
}

func TestWithModes(t *testing.T) {
	const lists = "TCP_PORTS=\"11\"\nUDP_PORTS=\"7,9\"\n"
	for _, tt := range []struct {
		text     string
		modes    Modes
		dialect  Dialect
		tcp, udp string // the ports that are traps
		want     Modes
		notes    []string
		mistakes string
	}{
		{lists, Modes{Stealth, Stealth}, Dialect2x, "11", "7,9", Modes{Stealth, Stealth}, nil, ""},
		{lists, Modes{Connect, Stealth}, Dialect1x, "11", "7,9", Modes{Connect, Stealth}, nil, ""},
		{lists, Modes{Connect, Unwatched}, Dialect1x, "11", "", Modes{Connect, Unwatched}, nil, ""},
		{lists, Modes{}, Dialect1x, "", "", Modes{}, nil, "f: nothing to watch: no mode for TCP and none for UDP"},

		// a list that is missing
		{`TCP_PORTS="11"`, Modes{Connect, Connect}, Dialect2x, "11", "", Modes{Connect, Unwatched}, nil, ""},
		{`UDP_PORTS="7"`, Modes{Connect, Connect}, Dialect2x, "", "7", Modes{Unwatched, Connect}, nil, ""},
		{`TCP_PORTS="11"`, Modes{Connect, Stealth}, Dialect1x, "", "", Modes{}, nil,
			"f: UDP_PORTS is not set, and -sudp watches the ports it lists; set it, or start with -audp to watch the ports below ADVANCED_PORTS_UDP"},
		{"", Modes{Connect, Connect}, Dialect1x, "", "", Modes{}, nil,
			"f: TCP_PORTS is not set, and -tcp watches the ports it lists; set it, or start with -atcp to watch the ports below ADVANCED_PORTS_TCP\n" +
				"f: UDP_PORTS is not set, and -udp watches the ports it lists; set it, or start with -audp to watch the ports below ADVANCED_PORTS_UDP"},
		{"", Modes{Stealth, Stealth}, Dialect2x, "", "", Modes{}, nil, "f: nothing to watch: neither TCP_PORTS nor UDP_PORTS is set; set one"},
		{`UDP_PORTS="7"`, Modes{Stealth, Unwatched}, Dialect2x, "", "", Modes{}, nil, "f: nothing to watch: TCP_PORTS is not set; set it"},
		{`ADVANCED_PORTS_TCP="9"`, Modes{Stealth, Stealth}, Dialect2x, "", "", Modes{}, nil,
			"f: nothing to watch: neither TCP_PORTS nor UDP_PORTS is set; set one, or start with -atcp to watch the ports below ADVANCED_PORTS_TCP"},
		{"ADVANCED_PORTS_TCP=\"9\"\nADVANCED_PORTS_UDP=\"9\"", Modes{Connect, Connect}, Dialect2x, "", "", Modes{}, nil,
			"f: nothing to watch: neither TCP_PORTS nor UDP_PORTS is set; set one, or start with -atcp -audp to watch the ports below ADVANCED_PORTS_TCP and ADVANCED_PORTS_UDP"},

		// advanced
		{"ADVANCED_PORTS_TCP=\"8\"\nADVANCED_EXCLUDE_TCP=\"1,3-4,7-9\"", Modes{Advanced, Unwatched}, Dialect1x, "2,5-6", "", Modes{Advanced, Unwatched}, nil, ""},
		{lists + "ADVANCED_PORTS_TCP=\"65536\"\nADVANCED_EXCLUDE_TCP=\"65535\"", Modes{Advanced, Stealth}, Dialect1x, "1-65534", "7,9", Modes{Advanced, Stealth}, nil, ""},
		{"", Modes{Advanced, Advanced}, Dialect1x, "1-1023", "1-1023", Modes{Advanced, Advanced}, []string{
			"ADVANCED_PORTS_TCP is not set: ports 1 to 1023 are watched, as of old",
			"ADVANCED_PORTS_UDP is not set: ports 1 to 1023 are watched, as of old"}, ""},
		{"ADVANCED_PORTS_UDP=\"2\"\n\nADVANCED_EXCLUDE_UDP=\"1\"", Modes{Unwatched, Advanced}, Dialect1x, "", "", Modes{}, nil,
			"f:3: ADVANCED_EXCLUDE_UDP: leaves none of the ports 1 to 1 to watch"},
	} {
		c, err := Parse("f", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		before := *c
		n, err := c.WithModes(tt.modes, tt.dialect)
		if got := strings.Join(mistakes(t, err), "\n"); got != tt.mistakes {
			t.Errorf("%q %v\n got %s\nwant %s", tt.text, tt.modes, got, tt.mistakes)
		}
		if !same(c, &before) {
			t.Errorf("%q %v: the original has changed", tt.text, tt.modes)
		}
		if err != nil {
			continue
		}
		if n.TrapsTCP().String() != tt.tcp || n.TrapsUDP().String() != tt.udp || n.Modes != tt.want || n.Dialect != tt.dialect {
			t.Errorf("%q %v: TCP %v, UDP %v, %v", tt.text, tt.modes, n.TrapsTCP(), n.TrapsUDP(), n.Modes)
		}
		if notes := n.Notes(); !slices.Equal(notes, tt.notes) {
			t.Errorf("%q %v: %q", tt.text, tt.modes, notes)
		}
		text := effective(t, n)
		if back, err := mustParse(t, text).WithModes(n.Modes, n.Dialect); err != nil || !same(back, n) {
			t.Errorf("%q %v: written\n%s%v", tt.text, tt.modes, text, err)
		}
	}
}

func TestLogFormatOfTheDialect(t *testing.T) {
	for text, want := range map[string]LogFormat{"": Log1x, `LOG_FORMAT=""`: Log1x, `LOG_FORMAT="2.x"`: Log2x, `LOG_FORMAT="json"`: LogJSON} {
		c, err := mustParse(t, text+"\nTCP_PORTS=\"1\"").WithModes(Modes{TCP: Stealth}, Dialect1x)
		if err != nil || c.LogFormat != want {
			t.Errorf("%q: %s, %v", text, c.LogFormat, err)
		}
	}
}

func TestWatchedLine(t *testing.T) {
	c, err := mustParse(t, "TCP_PORTS=\"11\"\nADVANCED_PORTS_UDP=\"100\"").WithModes(Modes{Connect, Advanced}, Dialect1x)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(effective(t, c), "\n"); got != "# watched: TCP port 11 (tcp), 99 UDP ports (audp)" {
		t.Error(got)
	}
}

func TestLess(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"1-10", "3,5-6", "1-2,4,7-10"}, {"1-10", "1,10", "2-9"}, {"1-10", "1-65535", ""}, {"5-9", "1-5,9-20", "6-8"},
		{"1-3,65535", "65534-65535", "1-3"}, {"1-3", "7", "1-3"},
	} {
		a, _ := parsePorts(tt.a)
		b, _ := parsePorts(tt.b)
		if got := a.Less(b).String(); got != tt.want {
			t.Errorf("%s less %s is %s, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}
