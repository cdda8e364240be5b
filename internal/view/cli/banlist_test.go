package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
)

// manyBans are as different from each other as bans are, in the order of their prefixes.
func manyBans(n int) []view.Ban {
	rnd := rand.New(rand.NewPCG(3, 4))
	bans := make([]view.Ban, n)
	for i := range bans {
		b := &bans[i]
		b.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		if rnd.IntN(4) == 0 {
			b.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i >> 16), byte(i >> 8), byte(i)}), 64)
		}
		b.Scope, b.Strength, b.Evidence = "all", []string{"limited", "soft", "full"}[rnd.IntN(3)], []string{"E1", "E2"}[rnd.IntN(2)]
		b.Since = now.Add(-time.Duration(rnd.Int64N(int64(time.Hour))))
		if rnd.IntN(8) > 0 {
			b.Until = new(b.Since.Add(time.Hour).In(time.FixedZone("", 3600*rnd.IntN(3))))
		}
		b.Times, b.Reason = 1+rnd.IntN(20), fmt.Sprintf("syn to trap port %d, unverified", rnd.IntN(3000))
		b.Methods = [][]string{{}, {"xdp", "nftables"}, {"nftables"}, {"KILL_ROUTE"}}[rnd.IntN(4)]
		if rnd.IntN(9) == 0 {
			b.Note = "hosts.deny stays"
		}
		if rnd.IntN(3) > 0 {
			b.Dropped, b.Alive = new(rnd.Uint64()>>rnd.IntN(64)), rnd.IntN(2) == 0
		}
	}
	return bans
}

// asWritten is what a daemon of this version answers.
func asWritten(bans []view.Ban) string {
	var s strings.Builder
	s.WriteString(listBegin)
	for i := range bans {
		if i > 0 {
			s.WriteByte(',')
		}
		line, err := json.Marshal(&bans[i])
		if err != nil {
			panic(err)
		}
		s.Write(line)
		s.WriteByte('\n')
	}
	s.WriteString(listEnd)
	return s.String()
}

// read gives what read takes and how it ends, in words.
func read(read func(take func(*view.Ban)) error) (bans []view.Ban, ended string) {
	err := read(func(b *view.Ban) { bans = append(bans, *b) })
	return bans, fmt.Sprint(err)
}

// sameList fails unless the answer is read as encoding/json reads it.
func sameList(t *testing.T, answer string) []view.Ban {
	t.Helper()
	got, ended := read(func(take func(*view.Ban)) error { return readBans(strings.NewReader(answer), take) })
	want, end := read(func(take func(*view.Ban)) error { return decodeBans(json.NewDecoder(strings.NewReader(answer)), take) })
	if ended != end || !reflect.DeepEqual(got, want) {
		t.Errorf("%.300q: read as\n%+v, %s, want\n%+v, %s", answer, got, ended, want, end)
	}
	return got
}

// What the daemon writes is read without encoding/json, and comes to the same.
func TestBansAsTheDaemonWritesThem(t *testing.T) {
	bans := manyBans(2000)
	none, most := uint64(0), uint64(math.MaxUint64)
	bans[7].Dropped, bans[8].Dropped, bans[9].Times, bans[10].Times = &none, &most, 0, math.MaxInt
	var before view.Ban
	for i := range bans {
		line, err := json.Marshal(&bans[i])
		if err != nil {
			t.Fatal(err)
		}
		var got, want view.Ban
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatal(err)
		}
		if !parseBan(line[:len(line)-1], &got, &before) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nread as %+v, want %+v", line, got, want)
		}
		before = got
	}
	if got := sameList(t, asWritten(bans)); len(got) != len(bans) {
		t.Errorf("%d bans, want %d", len(got), len(bans))
	}
	sameList(t, asWritten(nil))
}

// Another version may write otherwise, and an answer may break off anywhere.
func TestBansAsOthersWriteThem(t *testing.T) {
	bans := manyBans(6)
	plain := asWritten(bans)
	bans[2].Reason = "<b> \u00e9 \"quoted\" \\ \x1b"
	bans[4].Methods = []string{"a\nb", "\u2028"}
	odd := asWritten(bans)
	bans[3].Reason = strings.Repeat("long ", lineRoom/4)
	answers := []string{
		odd, asWritten(bans), strings.ReplaceAll(plain, "\n", ""), strings.ReplaceAll(plain, ",", " ,\n"), strings.ReplaceAll(plain, "\n", "\r\n"),
		strings.Replace(plain, `"times"`, `"Times"`, 1), strings.Replace(plain, `"times"`, `"later":{"a":[1]},"times"`, 1),
		strings.Replace(plain, `"times":`, `"times":-`, 1), strings.Replace(plain, `"times":`, `"times":0`, 1), strings.Replace(plain, `"times":`, `"times":1e2,"times":`, 1),
		strings.Replace(plain, `"reason":"`, `"reason":null,"reason":"`, 1), strings.Replace(plain, `"since":"`, `"since":"yesterday`, 1),
		strings.Replace(plain, `"prefix":"`, `"prefix":"","prefix":"`, 1), strings.Replace(plain, "/32", "/33", 1), strings.Replace(plain, "\n,", "\n", 1),
		strings.Replace(plain, "\n,", "\n,,", 1), strings.Replace(plain, "\n,", "\n,{}\n,", 1), strings.Replace(plain, "]}\n", `],"more":true}`, 1),
		strings.Replace(plain, "]}\n", `],"bans":[{"times":3}]}`, 1), plain + plain, `{"more":1,"bans":[]}`, `{"bans":null}`, `{"bans":{}}`, `{"bans":[,]}`, `[]`, "hello\n",
		strings.Replace(plain, `"methods":[`, `"methods":["a""b",`, 1), strings.Replace(plain, `"methods":[`, `"methods":[,`, 1),
	}
	for _, answer := range answers {
		sameList(t, answer)
	}
	for end := range odd {
		sameList(t, odd[:end])
	}
}

func FuzzReadBans(f *testing.F) {
	f.Add(asWritten(manyBans(3)))
	f.Add(`{"bans":[{"prefix":"2001:db8::/64","scope":"tcp","strength":"full","evidence":"E0","since":"2026-11-21T09:30:00+01:00","until":null,"times":9,"reason":"","methods":["x"],"note":"y","dropped":0,"alive":true}` + "\n,{}\n]}\n")
	f.Fuzz(func(t *testing.T, answer string) { sameList(t, answer) })
}

// A table of many is one of some 150 bytes a ban until it is written.
func BenchmarkBans(b *testing.B) {
	answer := asWritten(manyBans(100_000))
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		table := newBanTable(now, false)
		if err := readBans(strings.NewReader(answer), table.add); err != nil {
			b.Fatal(err)
		}
		table.write(bufio.NewWriter(io.Discard), 0)
	}
}
