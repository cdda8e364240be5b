package xdp

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"
	"unsafe"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

// memory is a ring in ordinary memory, with the kernel's side of it.
type memory struct {
	*ring
	tail uint64 // producer position
}

func newMemory(size int) *memory {
	data := make([]byte, 2*size)
	return &memory{ring: newRing(make([]byte, 8), make([]byte, 8), data)}
}

// put begins a record as bpf_ringbuf_reserve does; it is finished with flags 0.
func (m *memory) put(record []byte, flags uint32) (at uint64) {
	at = m.tail % m.size
	m.header(at, uint32(len(record))|flags)
	for i, b := range record { // as both mappings show it
		j := (at + headerSize + uint64(i)) % m.size
		m.data[j], m.data[j+m.size] = b, b
	}
	m.tail += (headerSize + uint64(len(record)) + 7) &^ 7
	m.producer.Store(uintptr(m.tail))
	return at
}

func (m *memory) header(at uint64, v uint32) {
	binary.NativeEndian.PutUint32(m.data[at:], v)
	binary.NativeEndian.PutUint32(m.data[at+m.size:], v)
}

func (m *memory) worker() *Worker { return &Worker{ring: m.ring, looked: time.Now()} }

// readAll reads what is there.
func (m *memory) readAll() (got []string, err error) {
	for end := m.next + m.waiting(); ; {
		record, err := m.read(end)
		if record == nil {
			return got, err
		}
		got = append(got, string(record))
	}
}

func bytesOf(e *bpf.Event) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(e)), eventSize)
}

func TestRing(t *testing.T) {
	m := newMemory(64)
	var want []string
	expect := func(when string, records ...string) {
		t.Helper()
		got, err := m.readAll()
		if err != nil || !slices.Equal(got, records) {
			t.Errorf("%s: %q, %v, want %q", when, got, err, records)
		}
	}
	expect("empty")
	for i := range 20 { // comes round several times
		want = []string{"abc"[:i%4], "12345678", ""}
		m.put([]byte(want[0]), 0)
		m.put([]byte(want[1]), 0)
		m.put([]byte("gone"), discarded)
		expect("three", want...)
		expect("read already")
		m.release()
		if got := m.consumer.Load(); got != m.tail {
			t.Fatalf("released up to %d of %d", got, m.tail)
		}
	}
	m.put([]byte("first"), 0)
	at := m.put([]byte("second"), busy)
	m.put([]byte("third"), 0)
	expect("the second is being written", "first")
	expect("still")
	m.header(at, 6)
	expect("written", "second", "third")
}

func TestRingCorrupt(t *testing.T) {
	for name, spoil := range map[string]func(m *memory){
		"a record longer than the ring":     func(m *memory) { m.header(0, 65) },
		"a record beyond the producer":      func(m *memory) { m.header(0, 9) },
		"the longest length":                func(m *memory) { m.header(0, busy>>1-1) },
		"a producer a ring and more ahead":  func(m *memory) { m.producer.Store(72) },
		"a producer behind the consumer":    func(m *memory) { m.next, m.tail = 16, 8; m.producer.Store(8) },
		"a producer in the midst of things": func(m *memory) { m.producer.Store(4) },
		"a consumer that is not aligned":    func(m *memory) { m.next = 3 },
	} {
		m := newMemory(64)
		m.put([]byte("abcdefgh"), 0)
		spoil(m)
		if _, err := m.readAll(); !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Room is given back a batch at a time, and a batch is bounded.
func TestBatch(t *testing.T) {
	e := bpf.Event{What: bpf.WhatProbe}
	const whole = headerSize + 128
	for _, test := range []struct {
		size, records int
		batches       []uint64
	}{
		{1 << 20, 600, []uint64{256, 256, 88}},
		{4 << 10, 30, []uint64{8, 8, 8, 6}}, // a quarter, and what it cuts
	} {
		m := newMemory(test.size)
		w := m.worker()
		for range test.records {
			m.put(bytesOf(&e), 0)
		}
		told := uint64(0)
		for i, want := range test.batches {
			before := m.consumer.Load()
			n, err := w.batch(m.next+m.waiting(), func(*capture.Event) {
				told++
				if m.consumer.Load() != before {
					t.Fatal("given back while it is read")
				}
			}, nil)
			if err != nil || n != want*whole || m.consumer.Load() != before+n {
				t.Errorf("%d bytes, batch %d: %d, %v; consumer %d to %d", test.size, i, n, err, before, m.consumer.Load())
			}
		}
		if n, err := w.batch(m.next+m.waiting(), nil, nil); n != 0 || err != nil || told != uint64(test.records) || w.Stats().Events != told {
			t.Errorf("after the last: %d, %v, %d told", n, err, told)
		}
	}
}

// Records that hold nothing known are counted, and what comes behind them is read.
func TestUnread(t *testing.T) {
	m := newMemory(8192)
	w := m.worker()
	m.put(make([]byte, eventSize-1), 0)
	for _, what := range []uint8{0, bpf.WhatCounted + 1, 255, bpf.WhatProbe} {
		m.put(bytesOf(&bpf.Event{What: what}), 0)
	}
	m.put(nil, 0)
	m.put(bytesOf(&bpf.Event{}), discarded)
	for _, b := range []int{0, 100, bpf.RawBytes} {
		m.put(append(bytesOf(&bpf.Event{What: bpf.WhatRaw, Length: 200}), make([]byte, b)...), 0)
	}
	var lengths []int
	for m.waiting() > 0 {
		if _, err := w.batch(m.next+m.waiting(), func(*capture.Event) {}, func(f *capture.Frame) {
			lengths = append(lengths, len(f.Data))
			if f.WireLen != 200 {
				t.Errorf("%+v", f)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.Stats(); s != (Stats{Events: 1, Frames: 3, Unread: 4}) || !slices.Equal(lengths, []int{0, 100, 200}) {
		t.Errorf("%+v, frames of %d bytes", s, lengths)
	}
}

func TestPause(t *testing.T) {
	w := newMemory(1 << 20).worker()
	w.source, w.urgent = &Source{}, true
	for _, test := range []struct {
		n        uint64
		in, want time.Duration
	}{
		{0, time.Hour, minPause},
		{136, time.Microsecond, 0},             // 136 MB/s: a quarter in 1.9 ms
		{136, 10 * time.Microsecond, maxPause}, // 13.6 MB/s
		{256 << 10, 2 * time.Millisecond, 2 * time.Millisecond},
		{1 << 20, 4 * time.Millisecond, minPause},
		{1<<20 + 8, 4 * time.Millisecond, 0},
		{1 << 40, 0, 0},
		{8, 1 << 62, maxPause},
	} {
		want := test.want
		if test.n == 136 && test.in == time.Microsecond {
			want = time.Microsecond * (256 << 10) / 136
		}
		if got := w.pause(test.n, test.in); got != want {
			t.Errorf("%d bytes in %v: %v, want %v", test.n, test.in, got, want)
		}
	}
}

// Pauses grow to what nobody is kept waiting by: whom the program does not keep out
// is answered as soon as ever.
func TestLongest(t *testing.T) {
	for _, test := range []struct {
		answers, urgent bool
		want            []time.Duration
	}{
		{true, true, []time.Duration{maxPause, maxPause}},
		{true, false, []time.Duration{maxPause, 2 * maxPause, heldPause, heldPause}},
		{false, true, []time.Duration{maxPause, 2 * maxPause, watchPause, watchPause}},
		{false, false, []time.Duration{maxPause, 2 * maxPause, watchPause, watchPause}},
	} {
		w := newMemory(1 << 20).worker()
		w.source, w.urgent = &Source{}, test.urgent
		w.source.SetAnswers(test.answers)
		for i, want := range test.want {
			if w.paused = w.longest(); w.paused != want {
				t.Errorf("%+v: pause %d is %v", test, i, w.paused)
			}
		}
	}
}

// What the program does not keep out is urgent, and so is what it could not read.
func TestUrgent(t *testing.T) {
	for _, test := range []struct {
		e    bpf.Event
		want bool
	}{
		{bpf.Event{What: bpf.WhatProbe, Made: 2}, false},
		{bpf.Event{What: bpf.WhatProbe}, true},
		{bpf.Event{What: bpf.WhatVerified}, true},
		{bpf.Event{What: bpf.WhatRaw}, true},
	} {
		m := newMemory(1 << 20)
		w := m.worker()
		m.put(bytesOf(&test.e), 0)
		_, err := w.batch(m.next+m.waiting(), func(*capture.Event) {}, func(*capture.Frame) {})
		if err != nil || w.urgent != test.want {
			t.Errorf("%+v: urgent %v, %v", test.e, w.urgent, err)
		}
	}
}

// Whatever the ring holds: nobody panics, the reader comes to an end, and not
// beyond the producer.
func FuzzBatch(f *testing.F) {
	probe, raw := bpf.Event{What: bpf.WhatProbe, OptionsLen: 44}, bpf.Event{What: bpf.WhatRaw, Length: 1 << 31}
	seed := func(records ...[]byte) {
		m := newMemory(1024)
		for _, r := range records {
			m.put(r, 0)
		}
		f.Add(m.data[:1024], uint32(0), uint32(m.tail))
	}
	seed(bytesOf(&probe), bytesOf(&probe)[:100], append(bytesOf(&raw), make([]byte, 40)...))
	seed(nil, nil)
	f.Fuzz(func(t *testing.T, data []byte, consumer, producer uint32) {
		m := newMemory(1024)
		copy(m.data, data[:min(len(data), 1024)])
		copy(m.data[1024:], m.data[:1024])
		m.next = uint64(consumer)
		m.producer.Store(uintptr(producer))
		w := m.worker()
		for range 1024 {
			before := m.next
			n, err := w.batch(m.next+m.waiting(), func(e *capture.Event) {
				if !e.Src.IsValid() || e.Kind == 0 || e.Times == 0 || len(e.TCPOptions) > 40 || e.VLANs > 2 {
					t.Fatalf("%+v", e)
				}
			}, func(f *capture.Frame) {
				if len(f.Data) > bpf.RawBytes || len(f.Data) > f.WireLen {
					t.Fatalf("%+v", f)
				}
			})
			if n != m.next-before || m.next > uint64(producer) && n > 0 {
				t.Fatalf("read %d bytes from %d to %d of %d", n, before, m.next, producer)
			}
			if err != nil || n == 0 {
				return
			}
		}
		t.Fatal("goes on for ever")
	})
}

func filled() (*memory, *Worker) {
	m := newMemory(1 << 20)
	e := bpf.Event{What: bpf.WhatProbe, OptionsLen: 20, Times: 1}
	for m.tail+1024 <= m.size {
		m.put(bytesOf(&e), 0)
	}
	return m, m.worker()
}

func TestNoAllocations(t *testing.T) {
	m, w := filled()
	m.put(append(bytesOf(&bpf.Event{What: bpf.WhatRaw, Length: 80}), make([]byte, 80)...), 0)
	if n := testing.AllocsPerRun(10, func() {
		m.next = 0
		for end := m.tail; m.next != end; {
			if n, err := w.batch(end, func(*capture.Event) {}, func(*capture.Frame) {}); n == 0 || err != nil {
				t.Fatal(n, err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// From the ring to the handler.
func BenchmarkEvent(b *testing.B) {
	m, w := filled()
	seen := 0
	handle := func(*capture.Event) { seen++ }
	b.ReportAllocs()
	for b.Loop() {
		m.next = 0
		for m.next != m.tail {
			if n, err := w.batch(m.tail, handle, nil); n == 0 || err != nil {
				b.Fatal(n, err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seen), "ns/event")
}
