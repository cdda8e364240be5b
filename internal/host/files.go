package host

import (
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxFile  = 256 << 10 // bytes read of one file
	maxFiles = 64        // files taken of one pattern
	maxAddrs = 256       // addresses kept of one kind
)

// fileSystem reads the administrator's and the system's files below root.
type fileSystem struct{ root string }

// match lists the files that a pattern names.
func (f fileSystem) match(pattern string) []string {
	path := filepath.Join(f.root, pattern)
	if !strings.Contains(pattern, "*") {
		return []string{path}
	}
	m, err := filepath.Glob(path)
	if err != nil { // only a malformed pattern, and ours are constant
		return nil
	}
	return m[:min(len(m), maxFiles)]
}

// read gives the text of each file there is, of its first maxFile bytes. What
// cannot be read says nothing: all of these files are optional.
func (f fileSystem) read(pattern string, each func(text string)) {
	for _, path := range f.match(pattern) {
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			continue // never wait for a pipe
		}
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(file, maxFile))
		file.Close()
		if err == nil {
			each(string(b))
		}
	}
}

// stamp changes when one of the files does: it is made of names, times and
// sizes, so nothing needs to be opened.
func (f fileSystem) stamp(lists ...[]source) uint64 {
	h := fnv.New64a()
	for _, list := range lists {
		for _, s := range list {
			for _, path := range f.match(s.pattern) {
				if st, err := os.Stat(path); err == nil {
					fmt.Fprintln(h, path, st.ModTime().UnixNano(), st.Size())
				}
			}
		}
	}
	return h.Sum64()
}

// source is a file, or a pattern of files, that may name addresses, and how.
type source struct {
	pattern string
	parse   func(text string, add func(word string))
}

// addresses collects what the sources name.
func (f fileSystem) addresses(sources []source) []netip.Addr {
	var l []netip.Addr
	add := func(word string) {
		if a, ok := literal(word); ok && len(l) < maxAddrs {
			l = append(l, a)
		}
	}
	for _, s := range sources {
		f.read(s.pattern, func(text string) { s.parse(text, add) })
	}
	return l
}

// literal reads a unicast address, without its zone, out of a word that may go
// on as configuration files have it: 192.0.2.1#53, 192.0.2.1:53, 192.0.2.1@eth0,
// [2001:db8::1]:853#name. Names are not looked up: whoever answers could put
// himself among the spared.
func literal(word string) (netip.Addr, bool) {
	if i := strings.IndexAny(word, "#@%"); i >= 0 {
		word = word[:i]
	}
	if inner, ok := strings.CutPrefix(word, "["); ok {
		word, _, _ = strings.Cut(inner, "]")
	} else if host, _, ok := strings.Cut(word, ":"); ok && strings.Count(word, ":") == 1 {
		word = host
	}
	a, err := netip.ParseAddr(word)
	a = a.Unmap().WithZone("")
	if err != nil || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, false
	}
	return a, true
}

// words gives the words of each line that is no comment, its key apart. The key
// ends before the first character of sep: "key word word", "key=word word".
func words(text, sep string, each func(key string, values []string)) {
	for line := range strings.Lines(text) {
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		line = strings.TrimSpace(line)
		end := strings.IndexAny(line, sep)
		if end < 0 {
			end = len(line)
		}
		key, rest := strings.ToLower(strings.TrimSpace(line[:end])), line[min(end+1, len(line)):]
		if key == "" || key[0] == ';' || key[0] == '!' {
			continue
		}
		each(key, strings.FieldsFunc(rest, func(r rune) bool {
			return strings.ContainsRune(" \t\r\n,;\"'", r)
		}))
	}
}

// keyed is a parser for lines whose key is one of keys.
func keyed(sep string, keys ...string) func(string, func(string)) {
	return func(text string, add func(string)) {
		words(text, sep, func(key string, values []string) {
			for _, k := range keys {
				if k == key {
					for _, v := range values {
						add(v)
					}
				}
			}
		})
	}
}

// localPortRange reads net.ipv4.ip_local_port_range, "32768\t60999\n".
func localPortRange(f io.ReaderAt) (first, last uint16, err error) {
	var b [64]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return 0, 0, fmt.Errorf("ip_local_port_range: %w", err)
	}
	if _, err := fmt.Sscan(string(b[:n]), &first, &last); err != nil {
		return 0, 0, fmt.Errorf("ip_local_port_range: %w", err)
	}
	return first, last, nil
}
