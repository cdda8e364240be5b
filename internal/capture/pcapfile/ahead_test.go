package pcapfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/gopacket/gopacket/layers"

	"portsentry/internal/capture"
)

// What is read ahead is what there is, with the error behind it; and the reading ends
// when it is told to, wherever it is.
func TestAhead(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 3*chunks*chunkLen/16)
	broken := errors.New("broken")
	for name, from := range map[string]func() io.Reader{
		"all":    func() io.Reader { return bytes.NewReader(want) },
		"halves": func() io.Reader { return iotest.HalfReader(bytes.NewReader(want)) },
		"at the end with an error": func() io.Reader {
			return io.MultiReader(iotest.DataErrReader(bytes.NewReader(want)), iotest.ErrReader(broken))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := readAhead(from())
			got, err := io.ReadAll(a)
			if !bytes.Equal(got, want) || err != nil && err != broken {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			if _, again := a.Read(make([]byte, 1)); again != io.EOF && again != broken {
				t.Errorf("%s: then %v", name, again)
			}
			a.close()
			a = readAhead(from())
			if _, err := io.ReadFull(a, make([]byte, chunkLen+1)); err != nil {
				t.Error(err)
			}
			synctest.Wait() // it has read as far ahead as it may
			a.close()
		})
	}
}

// A zipped file says the same on one core as on several, and may be left in its
// middle.
func TestZipped(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	plain := pcap(t, 2_000, layers.LinkTypeEthernet, false)
	file := zipped(t, plain)
	_, want, err := read(t, plain)
	must(t, err)
	for _, cores := range []int{1, 2} {
		runtime.GOMAXPROCS(cores)
		f, got, err := read(t, file)
		if err != nil || f.Cut() || !reflect.DeepEqual(got, want) {
			t.Errorf("%d cores: %d frames of %d, cut %v, %v", cores, len(got), len(want), f.Cut(), err)
		}
		f, err = New(bytes.NewReader(file))
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		if err := f.Run(ctx, func(*capture.Frame) { cancel() }); !errors.Is(err, context.Canceled) || f.Stats().Frames != 1 {
			t.Errorf("%d cores: %v, %+v", cores, err, f.Stats())
		}
	}
}
