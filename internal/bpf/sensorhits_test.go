package bpf

import (
	"encoding/binary"
	"testing"
)

// The vector of the paper for 15 bytes does not fit two words; that of the
// reference implementation for 16 bytes 00 to 0f does, under the key 00 to 0f.
func TestSiphash(t *testing.T) {
	var b [16]byte
	for i := range b {
		b[i] = byte(i)
	}
	words := [2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
	if got, want := siphash(words, words[:]...), uint64(0x3f2acc7f57c29bdb); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}
