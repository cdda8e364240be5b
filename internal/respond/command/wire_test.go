package command

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

func ask(step respond.Step, host string) *request {
	return &request{
		id: 7, step: step, host: netip.MustParseAddr(host), port: 23, flags: decode.SYN, count: 3,
		proto: decode.ProtoTCP, mode: config.Stealth, kind: detect.KindSYN, evidence: judge.E1,
	}
}

func TestRequestIsChecked(t *testing.T) {
	good := ask(respond.StepRoute, "10.77.0.2").encode()
	if r, err := decodeRequest(good[:]); err != nil || r != *ask(respond.StepRoute, "10.77.0.2") {
		t.Fatalf("%+v, %v", r, err)
	}
	set := func(at int, v ...byte) []byte {
		b := good
		copy(b[at:], v)
		return b[:]
	}
	v6 := ask(respond.StepRoute, "fd77::2").encode()
	mapped := v6
	copy(mapped[10:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 2})
	for name, b := range map[string][]byte{
		"empty":                 {},
		"short":                 good[:requestSize-1],
		"long":                  append(good[:], 0),
		"native step":           set(8, byte(respond.StepNative)),
		"unknown step":          set(8, 200),
		"family 5":              set(9, 5),
		"bytes behind the IPv4": set(14, 1),
		"0.0.0.0":               set(10, 0, 0, 0, 0),
		"loopback":              set(10, 127, 0, 0, 1),
		"multicast":             set(10, 224, 0, 0, 1),
		"::":                    append(append([]byte{}, v6[:10]...), append(make([]byte, 16), v6[26:]...)...),
		"mapped":                mapped[:],
		"flag beyond the ninth": set(28, 2),
		"protocol 132":          set(34, 132),
		"mode of no protocol":   set(34, 0),
		"mode beyond the last":  set(35, byte(config.Advanced)+1),
		"third dialect":         set(36, byte(config.Dialect1x)+1),
		"kind beyond the last":  set(37, byte(detect.KindConnect)+1),
		"evidence beyond E3":    set(38, byte(judge.E3)+1),
	} {
		if r, err := decodeRequest(b); !errors.Is(err, errRecord) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// FuzzRequest: what is accepted has that one encoding, and puts nothing into a
// command line that a shell, or hosts.deny, could misunderstand.
func FuzzRequest(f *testing.F) {
	for _, r := range []*request{ask(respond.StepRoute, "10.77.0.2"), ask(respond.StepHostsDenyUndo, "fd77::2")} {
		b := r.encode()
		f.Add(b[:])
		r.mode, r.dialect, r.kind = config.Advanced, config.Dialect1x, detect.KindConnect
		b = r.encode()
		f.Add(b[:])
	}
	const template = "$TARGET$ $PORT$ $MODE$ $PROTO$ $DIRECTION$ $KIND$ $COUNT$ $EVIDENCE$ $FAMILY$"
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if again := r.encode(); string(again[:]) != string(b) {
			t.Fatalf("%x decoded and encoded is %x", b, again)
		}
		for _, line := range append(r.environ()[1:], expand(template, &r), expandLine(template, &r)) {
			line = strings.TrimPrefix(line, "PORTSENTRY_")
			if i := strings.IndexFunc(line, func(c rune) bool {
				return !(c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c)) || strings.ContainsRune(".: []=", c))
			}); i >= 0 || strings.Contains(line, "$") {
				t.Fatalf("%q", line)
			}
		}
	})
}

// FuzzReply: never a panic, and never a text that is not one printable line.
func FuzzReply(f *testing.F) {
	b := (&reply{id: 1, status: Exited, code: 1, took: time.Second, text: "a", detail: "b\n\x1b[31m"}).encode()
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeReply(b)
		if err != nil {
			return
		}
		for _, s := range []string{r.text, r.detail, (&Error{Status: r.status, Code: int(r.code), Detail: r.detail}).Error()} {
			if strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("%q", s)
			}
		}
	})
}

func TestReply(t *testing.T) {
	long := strings.Repeat("x", textSize+1)
	b := (&reply{id: 9, status: Signaled, code: 9, took: 5 * time.Millisecond, refused: 2, text: long, detail: "sh: not\x1bgood\n"}).encode()
	r, err := decodeReply(b[:])
	want := reply{id: 9, status: Signaled, code: 9, took: 5 * time.Millisecond, refused: 2, text: long[:textSize-3] + "...", detail: "sh: not good"}
	if err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
}
