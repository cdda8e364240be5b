package memory

import (
	"bytes"
	"sync"
	"testing"

	"portsentry/internal/detect"
)

// full is a full table, and who is in it.
func full() *Long {
	l := newKeyed(Options{}, testKey)
	for i := range uint64(1 << 20) {
		l.Keep(addr(i), detect.Memory{First: t0, Last: t0 + hour, Score: 3})
	}
	return l
}

func BenchmarkRecall(b *testing.B) {
	l := full()
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		l.Recall(addr(i*7919%(1<<20)), t0+2*hour)
	}
}

func BenchmarkRecallStranger(b *testing.B) {
	l := full()
	b.ReportAllocs()
	for i := uint64(1 << 30); b.Loop(); i++ {
		l.Recall(addr(i), t0+2*hour)
	}
}

func BenchmarkKeepKnown(b *testing.B) {
	l := full()
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		l.Keep(addr(i*7919%(1<<20)), detect.Memory{First: t0, Last: t0 + 2*hour, Score: 6})
	}
}

// Each pushes out the weakest of 16.
func BenchmarkKeepFull(b *testing.B) {
	l := full()
	b.ReportAllocs()
	for i := uint64(1 << 30); b.Loop(); i++ {
		l.Keep(addr(i), detect.Memory{First: t0, Last: t0 + 2*hour, Score: 6})
	}
}

// Forged addresses, each seen once.
func BenchmarkKeepForged(b *testing.B) {
	l := newKeyed(Options{}, testKey)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		now := t0 + int64(i)*3_333_333
		l.Keep(addr(i), detect.Memory{First: now, Last: now, Score: 3})
	}
}

func BenchmarkSave(b *testing.B) {
	l := full()
	var w bytes.Buffer
	for b.Loop() {
		w.Reset()
		if err := l.Save(&w, new(sync.Mutex)); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(w.Len()))
}

func BenchmarkLoad(b *testing.B) {
	file := saved(b, full())
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := Load(bytes.NewReader(file), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
