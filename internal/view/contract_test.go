package view_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
	"portsentry/internal/view/log"
)

// field is one row of a table in docs/json.md.
type field struct {
	types    []string // JSON types it may have
	optional bool
	oneOf    []string // allowed values; none: any
	// elsewhere: what is in it is documented where the meaning says.
	elsewhere bool
	seen      bool
}

// tables reads docs/json.md: the fields under each heading.
func tables(t *testing.T) map[string]map[string]*field {
	t.Helper()
	doc, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile("`([^`]*)`")
	all := make(map[string]map[string]*field)
	heading := ""
	for line := range strings.Lines(string(doc)) {
		if title, ok := strings.CutPrefix(line, "### "); ok {
			heading, _, _ = strings.Cut(strings.TrimSpace(title), ":")
			all[heading] = make(map[string]*field)
			continue
		}
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 4 || !strings.HasPrefix(cells[0], "| `") {
			continue
		}
		f := &field{types: strings.Split(cells[1], " or "), optional: cells[2] != "never", elsewhere: strings.Contains(cells[3], " as in `")}
		if _, list, ok := strings.Cut(cells[3], "one of "); ok {
			for _, m := range word.FindAllStringSubmatch(list, -1) {
				f.oneOf = append(f.oneOf, m[1])
			}
		}
		all[heading][word.FindStringSubmatch(cells[0])[1]] = f
	}
	return all
}

// check compares one decoded object with its table.
func check(t *testing.T, fields map[string]*field, object map[string]any, prefix, raw string) {
	t.Helper()
	for name, value := range object {
		path := prefix + name
		f := fields[path]
		if f == nil {
			t.Errorf("%s is not documented: %s", path, raw)
			continue
		}
		f.seen = true
		is := "null"
		switch v := value.(type) {
		case string:
			is = "string"
			if f.oneOf != nil && !slices.Contains(f.oneOf, v) {
				t.Errorf("%s: %q is not one of %q", path, v, f.oneOf)
			}
		case float64:
			is = "number"
		case bool:
			is = "boolean"
		case map[string]any:
			is = "object"
			if !f.elsewhere {
				check(t, fields, v, path+".", raw)
			}
		case []any:
			is = "array"
			for _, e := range v {
				if e, ok := e.(map[string]any); ok && !f.elsewhere {
					check(t, fields, e, path+"[].", raw)
				}
			}
		}
		if !slices.Contains(f.types, is) {
			t.Errorf("%s is of type %s, documented as %q", path, is, f.types)
		}
	}
	for path, f := range fields {
		name, mine := strings.CutPrefix(path, prefix)
		if _, there := object[name]; mine && !strings.ContainsAny(name, ".[") && !there && !f.optional {
			t.Errorf("%s is missing: %s", path, raw)
		}
	}
}

func decodeObject(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return object
}

// records are sightings of every sort.
func records() []*store.Record {
	base := store.Record{Verdict: judge.Verdict{
		Sighting: detect.Sighting{
			Time: 1_795_252_442_113_000_000, IfIndex: 2, Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("10.0.0.5"),
			SrcPort: 40000, DstPort: 23, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN | decode.ECE | decode.CWR,
			TTL: 52, IPOptions: decode.No, Count: 1, Triggered: true,
		},
		Evidence: judge.E1, Reason: "log only",
	}}
	var out []*store.Record
	vary := func(change func(r *store.Record)) {
		r := base
		change(&r)
		out = append(out, &r)
	}
	for k := detect.KindSYN; k <= detect.KindUDP; k++ {
		vary(func(r *store.Record) {
			s := &r.Verdict.Sighting
			s.Kind = k
			if k == detect.KindUDP {
				s.Proto, s.Flags = decode.ProtoUDP, 0
			}
		})
	}
	vary(func(r *store.Record) {
		s := &r.Verdict.Sighting
		s.Proto, s.Kind, s.Flags = decode.ProtoSCTP, detect.KindINIT, 0
		s.Scan = detect.Found{Kind: detect.KindINIT, Proto: s.Proto, First: s.Time, Ports: 5, Targets: 1, Probes: 7, Score: 14.93, Tool: "nmap", Campaign: 3}
	})
	for spared := judge.Ignored; spared <= judge.TimeServer; spared++ {
		vary(func(r *store.Record) { r.Verdict.Spared = spared })
	}
	for e := judge.E0; e <= judge.E3; e++ {
		vary(func(r *store.Record) { r.Verdict.Evidence = e })
	}
	vary(func(r *store.Record) { r.Verdict.Sighting.Triggered = false })
	vary(func(r *store.Record) { r.Name = "scanner.example.net" })
	vary(func(r *store.Record) {
		s := &r.Verdict.Sighting
		s.Src, s.Dst = netip.MustParseAddr("fe80::9%eth0"), netip.MustParseAddr("fe80::1")
		s.IPOptions, s.IfIndex, s.Fragmented, s.BadChecksum, s.Flags = decode.NotKnown, 0, true, true, 0
	})
	for strength := judge.Nothing; strength <= judge.Full; strength++ {
		for scope := judge.AllProtocols; scope <= judge.UDPOnly; scope++ {
			vary(func(r *store.Record) {
				v := &r.Verdict
				v.Block, v.Strength, v.Scope, v.Peer, v.Length = config.BlockBan, strength, scope, true, 10*time.Minute
				v.Prefix = netip.MustParsePrefix("203.0.113.9/32")
				r.Outcome = respond.Outcome{Blocked: true, Actions: []respond.Action{{Step: respond.StepNative, Text: "nftables for 10m0s"}}}
			})
		}
	}
	vary(func(r *store.Record) {
		r.Verdict.Block, r.Verdict.Strength = config.BlockBan, judge.Soft
		for s := respond.StepNative; s <= respond.StepCommandUndo; s++ {
			r.Outcome.Actions = append(r.Outcome.Actions,
				respond.Action{Step: s, Text: "sh -c \"x\"\n\x1b[2J\xff", Took: 1234567 * time.Nanosecond, Err: errors.New("exit status 1")},
				respond.Action{Step: s, Skipped: true})
		}
	})
	return out
}

func TestEventsAreAsDocumented(t *testing.T) {
	all := tables(t)
	var out bytes.Buffer
	w := log.New(log.Options{Format: config.LogJSON, Stdout: &out})
	w.InterfaceName = func(int32) string { return "eth0" }
	for _, r := range records() {
		w.Scan(r)
	}
	w.Active()
	w.Notice("something")
	w.Error("something\nwrong")
	for e := respond.Expired; e <= respond.Undone; e++ {
		for scope := judge.AllProtocols; scope <= judge.UDPOnly; scope++ {
			ban := respond.Ban{Prefix: netip.MustParsePrefix("2001:db8::/64"), Scope: scope, Strength: judge.Full, Since: time.Now(), By: "uid 0 (pid 7)", Reason: "\x1b"}
			w.Began(&ban)
			ban.Until = ban.Since.Add(time.Hour)
			w.Began(&ban)
			w.Ended(&ban, respond.End{Ending: e})
			w.Ended(&ban, respond.End{Ending: e, By: "uid 0 (pid 7)"})
		}
	}
	w.Changed("uid 0 (pid 7)", "it is another\nnow")
	w.Changed("", "it is as it was")
	w.Problem("disk", "the disk is full\nand slow", false, true)
	w.Problem("disk", "the disk is full\nand slow", true, false)
	w.Actions(netip.MustParseAddr("2001:db8::9"), []respond.Action{{Step: respond.StepCommandUndo, Text: "/bin/true"}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	for line := range bytes.Lines(out.Bytes()) {
		object := decodeObject(t, line)
		check(t, all[fmt.Sprintf("Event `%s`", object["event"])], object, "", string(line))
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(object["time"])); err != nil || at.Location() != time.UTC {
			t.Errorf("time %v is no UTC time of RFC 3339: %v", object["time"], err)
		}
	}
	for heading, fields := range all {
		if strings.HasPrefix(heading, "Event") {
			allSeen(t, heading, fields)
		}
	}
}

func TestAnswersAreAsDocumented(t *testing.T) {
	all := tables(t)
	at := time.Date(2026, 11, 21, 9, 14, 2, 0, time.UTC)
	ban := view.Ban{
		Prefix: netip.MustParsePrefix("203.0.113.9/32"), Scope: "all", Strength: "soft", Evidence: "E1", Since: at, Until: &at,
		Times: 1, Reason: "syn to trap port 23, unverified", Methods: []string{"nftables"},
	}
	forGood := ban
	forGood.Until, forGood.Methods = nil, nil
	forGood.Note = "what KILL_ROUTE did stays until undone by hand: no undo is configured for it"
	counted, dropped := ban, uint64(0)
	counted.Methods, counted.Dropped, counted.Alive = []string{"xdp", "nftables"}, &dropped, true
	past := view.PastBan{Ban: counted, Ended: &at, Ending: "lifted", By: "uid 0", EndedBy: "uid 0"}
	past.Note = "x"
	source := view.Source{Name: "x", Tool: "x", Campaign: "x", Kinds: []string{"syn"}, Evidence: "E1"}
	answers := map[string][]any{
		"Answer of `GET /v1/status`": {
			view.Status{TCPMode: "none", UDPMode: "connect"},
			view.Status{
				TCPMode: "stealth", UDPMode: "advanced",
				Started: at, Watching: []view.Watched{{Interface: "wg0", How: "AF_PACKET", Why: "no Ethernet header"}},
				Counters: []view.Counter{{Name: "lost_total", Loss: true}}, Problems: []string{"the disk is full"}, Lacks: []string{"x"}, StandBy: []string{"nftables"},
				CheckedBans: 2, Enforced: 1, Checked: &at,
			},
		},
		"Answer of `GET /v1/health`":       {view.Health{Problems: []string{}}, view.Health{Problems: []string{"x"}, Checked: &at}},
		"Answer of `GET /v1/bans`":         {view.BanList{Bans: []view.Ban{ban, forGood, counted}}},
		"Answer of `DELETE /v1/bans/ADDR`": {view.Unbanned{Address: ban.Prefix.Addr(), Lifted: []view.Ban{ban}}, view.Unbanned{Lifted: []view.Ban{}, Pending: 3, Confirm: &at, Text: "x"}},
		"Answer of `POST /v1/bans/ADDR` and of `POST /v1/reload`": {
			view.Changed{Bans: []view.Ban{}, Lifted: []view.Ban{}},
			view.Changed{Bans: []view.Ban{}, Lifted: []view.Ban{}, Pending: 3, Confirm: &at},
		},
		"Answer of `GET /v1/pending`": {view.PendingList{Pending: []view.Pending{{Number: 3}}}},
		"Answer of `GET /v1/events`": {view.EventList{Events: []view.Event{}, More: true}, view.EventList{Events: []view.Event{
			{Time: at, Type: view.TypeLost, Count: 7, Text: "x"},
			{Time: at, Last: &at, Type: view.TypeProbes, Source: "203.0.113.9", Kind: "syn", Protocol: "tcp", Count: 2, Port: 1, Ports: 2, Text: "x"},
		}}},
		"Answer of `GET /v1/sources`": {view.SourceList{Sources: []view.Source{{Kinds: []string{}, Evidence: "E1"}, source}, More: true}},
		"Answer of `GET /v1/why/ADDR`": {
			view.Why{Verdict: view.VerdictUnknown, Packets: []view.Packet{}, Rules: []view.Rule{}, Arithmetic: []string{}, Past: []view.PastBan{}},
			view.Why{
				Name: "scanner.example.net", Verdict: view.VerdictBanned, Spared: "x", Ban: &past, Summary: "x", Seen: &source, IgnoreFile: "x",
				Packets: []view.Packet{{Kind: "syn"}, {Kind: "syn", Interface: "eth0", Flags: "SYN"}}, Rules: []view.Rule{{}},
				Arithmetic: []string{"x"}, Past: []view.PastBan{{Ban: ban}, past},
			},
		},
		"Answer of `GET /v1/report`": {
			view.Report{TopSources: []view.Source{}, Bans: []view.PastBan{}},
			view.Report{TopSources: []view.Source{}, Bans: []view.PastBan{}, TopPorts: []view.Tally{{}, {Note: "x"}}, Kinds: []view.Tally{}, Endings: []view.Tally{}, Answered: []view.Tally{}},
		},
		"Answer of `PUT /v1/modes`": {view.Modes{PID: 7, TCP: "connect", UDP: "none"}, view.Modes{PID: 7, TCP: "connect", UDP: "none", Stopping: true}},
		"Every other answer":        {view.Refusal{}, view.Refusal{Message: "no", Hint: "ask again", Mistakes: []string{"x"}}},
	}
	for heading, samples := range answers {
		fields := all[heading]
		if fields == nil {
			t.Errorf("docs/json.md has no heading %q", heading)
		}
		for _, a := range samples {
			raw, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			check(t, fields, decodeObject(t, raw), "", string(raw))
		}
		allSeen(t, heading, fields)
	}
}

func allSeen(t *testing.T, heading string, fields map[string]*field) {
	t.Helper()
	if len(fields) == 0 {
		t.Errorf("%s: no fields", heading)
	}
	for path, f := range fields {
		if !f.seen {
			t.Errorf("%s: %s is documented, but never written", heading, path)
		}
	}
}
