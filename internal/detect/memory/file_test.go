package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"portsentry/internal/detect"
)

func saved(t testing.TB, l *Long) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.Save(&b, new(sync.Mutex)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reload(t testing.TB, l *Long, o Options) *Long {
	t.Helper()
	got, err := Load(bytes.NewReader(saved(t, l)), o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// some are n sources, of which source i has failed i+1 times.
func some(o Options, n uint64) *Long {
	l := New(o)
	for i := range n {
		l.Keep(addr(i), detect.Memory{First: t0, Last: t0 + hour, Score: float32(i+1) / 64, Ports: i})
	}
	return l
}

func TestSaveLoad(t *testing.T) {
	l := some(Options{Bytes: 1 << 20}, 3500)
	got := reload(t, l, Options{Bytes: 1 << 20})
	for i := range uint64(3500) {
		want, _ := l.Recall(addr(i), t0+hour)
		if m, ok := got.Recall(addr(i), t0+hour); !ok || m != want {
			t.Fatalf("source %d: %+v, saved %+v", i, m, want)
		}
	}
	if l.Stats().Entries != 3500 || got.Stats().Entries != 3500 {
		t.Errorf("%d of %d are back", got.Stats().Entries, l.Stats().Entries)
	}
	if e := reload(t, New(Options{}), Options{}); e.Stats() != (Stats{}) {
		t.Errorf("empty: %+v", e.Stats())
	}
}

// With less room the strongest stay.
func TestLoadSmaller(t *testing.T) {
	got := reload(t, some(Options{}, 4000), Options{Bytes: 2048 * 32})
	if e := got.Stats().Entries; e < 2000 || e > 2048 || got.Bytes() != 2048*32 {
		t.Errorf("%d of 2048 entries, %d bytes", e, got.Bytes())
	}
	strong := 0
	for i := uint64(3000); i < 4000; i++ {
		if _, ok := got.Recall(addr(i), t0+hour); ok {
			strong++
		}
	}
	if strong < 995 {
		t.Errorf("of the 1000 strongest %d stayed", strong)
	}
}

func TestLoadWrong(t *testing.T) {
	good := saved(t, some(Options{}, 20))
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name string
		file []byte
		want error
	}{
		{"empty", nil, ErrForeign},
		{"text", []byte("Host: 192.0.2.1\n"), ErrForeign},
		{"long text", bytes.Repeat([]byte("Host: 192.0.2.1\n"), 100), ErrForeign},
		{"version", change(func(b []byte) []byte { b[len(magic)]++; return b }), ErrVersion},
		{"cut in the magic", good[:5], ErrDamaged},
		{"cut in the header", good[:30], ErrDamaged},
		{"cut in an entry", good[:headerBytes+50], ErrDamaged},
		{"cut between entries", good[:headerBytes+64], ErrDamaged},
		{"cut in the checksum", good[:len(good)-1], ErrDamaged},
		{"longer", append(bytes.Clone(good), 0), ErrDamaged},
		{"without an end", change(func(b []byte) []byte {
			b[len(b)-4-entryBytes] = 1
			return b
		}), ErrDamaged},
	} {
		if l, err := Load(bytes.NewReader(c.file), Options{}); l != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for i := len(magic) + 4; i < len(good); i++ {
		bad := change(func(b []byte) []byte { b[i] ^= 0x10; return b })
		if _, err := Load(bytes.NewReader(bad), Options{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a bit of byte %d is wrong: %v", i, err)
		}
	}
	broken := errors.New("broken")
	for _, n := range []int{0, 3, 30, 100, len(good) - 2, len(good)} {
		r := io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken))
		if _, err := Load(r, Options{}); !errors.Is(err, broken) {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
		if err := New(Options{}).Save(&short{n: n / 20, err: broken}, new(sync.Mutex)); n < 100 && !errors.Is(err, broken) {
			t.Errorf("saving to what breaks after %d bytes: %v", n/20, err)
		}
	}
}

// What another version saved is said to be older or newer, whatever is in it.
func TestLoadOtherVersion(t *testing.T) {
	for v, want := range map[uint32]string{1: "an older version, 1", version + 1: "a newer version"} {
		file := binary.LittleEndian.AppendUint32([]byte(magic), v)
		l, err := Load(bytes.NewReader(append(file, make([]byte, 1000)...)), Options{})
		if l != nil || !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: %v", v, err)
		}
	}
}

// While it is written, to what is slow, sources come and go all the same, the table grows,
// and nobody is lost who was there before: of one whose entry moved, the newest counts.
func TestSaveMeanwhile(t *testing.T) {
	const before, meanwhile = 20_000, 10_000
	l := some(Options{}, before)
	var mu sync.Mutex
	file := &busy{do: func(n uint64) {
		mu.Lock() // it must not be held by who writes
		defer mu.Unlock()
		for i := range uint64(meanwhile / 20) {
			l.Keep(addr(before+n*meanwhile/20+i), detect.Memory{First: t0, Last: t0 + hour, Score: 3})
		}
	}}
	if err := l.Save(file, &mu); err != nil {
		t.Fatal(err)
	}
	if file.n < 10 {
		t.Fatalf("%d writes", file.n)
	}
	got, err := Load(&file.b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range uint64(before) {
		want, _ := l.Recall(addr(i), t0+hour)
		if m, ok := got.Recall(addr(i), t0+hour); !ok {
			lost++
		} else if m != want {
			t.Fatalf("source %d: %+v, saved %+v", i, m, want)
		}
	}
	if lost > before/100 {
		t.Errorf("%d of %d are not there", lost, before)
	}
}

// busy does something with each write.
type busy struct {
	b  bytes.Buffer
	n  uint64
	do func(n uint64)
}

func (w *busy) Write(b []byte) (int, error) {
	if w.n < 20 {
		w.do(w.n)
	}
	w.n++
	return w.b.Write(b)
}

// An entry that is there twice counts once, as it was at last.
func TestLoadTwice(t *testing.T) {
	l := some(Options{}, 1)
	first := saved(t, l)
	m, _ := l.Recall(addr(0), t0+hour)
	m.Score += 3
	l.Keep(addr(0), m)
	last := saved(t, l)
	both := append(bytes.Clone(first[:headerBytes+entryBytes]), last[headerBytes:len(last)-4]...)
	sum := checksum()
	sum.Write(both)
	got, err := Load(bytes.NewReader(binary.LittleEndian.AppendUint32(both, sum.Sum32())), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := got.Recall(addr(0), t0+hour); again != m || got.Stats().Entries != 1 {
		t.Errorf("%+v of %d, want %+v", again, got.Stats().Entries, m)
	}
}

// short takes n bytes and then fails.
type short struct {
	n   int
	err error
}

func (s *short) Write(b []byte) (int, error) {
	if s.n -= len(b); s.n < 0 {
		return 0, s.err
	}
	return len(b), nil
}

// Any file is loaded or is a known error; what was loaded can be saved and is the same
// when loaded again; and the memory stays within its bounds.
func FuzzLoad(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte(magic), false)
	f.Add(saved(f, New(Options{})), false)
	f.Add(saved(f, some(Options{}, 40)), false)
	f.Add(saved(f, some(Options{}, 40)), true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) > headerBytes+4 { // also those with a right checksum
			b = bytes.Clone(b)
			c := checksum()
			c.Write(b[:len(b)-4])
			binary.LittleEndian.PutUint32(b[len(b)-4:], c.Sum32())
		}
		o := Options{Bytes: 1024}
		l, err := Load(bytes.NewReader(b), o)
		if err != nil {
			if l != nil || !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v", err)
			}
			return
		}
		if s := l.Stats(); s.Entries > 32 || l.Bytes() > 1024 {
			t.Fatalf("%d entries in %d bytes", s.Entries, l.Bytes())
		}
		if again := reload(t, l, Options{}); again.Stats().Entries != l.Stats().Entries || again.Stats().Probation != l.Stats().Probation {
			t.Fatalf("%+v, and loaded again %+v", l.Stats(), again.Stats())
		}
		fail(l, addr(1), t0)
	})
}
