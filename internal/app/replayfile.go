package app

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"portsentry/internal/capture/pcapfile"
)

// captureName is what to call the capture at path.
func captureName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// openCapture opens the capture at path, or stdin for "-".
func openCapture(path string, stdin io.Reader) (f *pcapfile.File, err error) {
	if path == "-" {
		f, err = pcapfile.New(stdin)
	} else {
		f, err = pcapfile.Open(path)
	}
	if err != nil {
		return nil, captureError(path, err)
	}
	return f, nil
}

// captureError says what is wrong with the capture at path and what to do about
// it.
func captureError(path string, err error) error {
	name := captureName(path)
	var format *pcapfile.FormatError
	switch {
	case errors.As(err, &format):
		return fmt.Errorf("%s: %w", name, notCapture(path, format))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such file", name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; captures of root's are for root: sudo portsentry replay %s", name, name)
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%s is a directory; name the captures in it, for example %s/*.pcap", name, strings.TrimRight(path, "/"))
	case errors.Is(err, pcapfile.ErrEmpty):
		return fmt.Errorf("%s is empty", name)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s ends before its first packet", name)
	}
	var damage *pcapfile.DamageError
	if errors.As(err, &damage) {
		return fmt.Errorf("%s is damaged after %s (%w); what comes before was judged", name, quantity(damage.Packets, "packet"), damage.Err)
	}
	return fmt.Errorf("%s: %w", name, cmp.Or(errors.Unwrap(err), err)) // it names the file itself
}

// notCapture says what a file seems to be that is no capture.
func notCapture(path string, err *pcapfile.FormatError) error {
	packed := func(how, with string) error {
		unpack := with + " -dc < FILE"
		if path != "-" {
			unpack = with + " -dc " + path
		}
		return fmt.Errorf("is compressed with %s, and gzip alone is read here; unpack it: %s | portsentry replay -", how, unpack)
	}
	for _, known := range []struct {
		magic string
		what  func() error
	}{
		{"BZh", func() error { return packed("bzip2", "bzip2") }},
		{"\xfd7zX", func() error { return packed("xz", "xz") }},
		{"\x28\xb5\x2f\xfd", func() error { return packed("zstd", "zstd") }},
		{"PK\x03\x04", func() error { return errors.New("a zip archive, no capture; unpack it first") }},
	} {
		if bytes.HasPrefix(err.Begins, []byte(known.magic)) {
			return known.what()
		}
	}
	return fmt.Errorf("neither pcap nor pcapng (it begins with %x); editcap -F pcapng makes one of other captures", err.Begins)
}
