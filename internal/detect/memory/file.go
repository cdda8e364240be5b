package memory

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"
)

// What is wrong with a file that Load does not take.
var (
	ErrForeign = errors.New("not a memory of portsentry's; if it is in the way, move it aside")
	ErrVersion = errors.New("saved by another version of portsentry; move it aside to start with an empty one")
	ErrDamaged = errors.New("the memory is damaged; move it aside to start with an empty one")
)

// A saved memory is the magic, the version (4 bytes), the key (16), the entries (32
// each: hash, ports, days, first and last minute, score and verified score), one with
// hash 0 that ends them, and the CRC-32C of all that (4). Numbers are little-endian. Of
// two entries with one hash the later one counts. Version 1 had the ports as bits of 64.
const (
	magic       = "portsentry long\n"
	version     = 2
	headerBytes = len(magic) + 4 + 16
)

func checksum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// Save writes all entries and the key. It holds mu, which guards l, only to copy a page
// of the table at a time, 64 KiB, and never while it writes: w may be slow. An entry that
// moves meanwhile may be in the file twice, and, where one of another source needed room
// in a page that has been written, not at all. What the doorkeeper knows is not saved:
// those are forged addresses nearly all.
func (l *Long) Save(w io.Writer, mu sync.Locker) error {
	sum := checksum()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	le := binary.LittleEndian
	k := l.key.bytes()
	b := append(make([]byte, 0, headerBytes), magic...)
	b = le.AppendUint32(b, version)
	b = append(b, k[:]...)
	out.Write(b) // the error stays until Flush
	page := make([]bucket, pageBuckets)
	for i := 0; ; i++ {
		mu.Lock()
		if i == len(l.table.pages) {
			mu.Unlock()
			break
		}
		n := copy(page, l.table.pages[i])
		mu.Unlock()
		for j := range page[:n] {
			for k, h := range page[j].hash {
				if h == 0 {
					continue
				}
				n := &page[j].note[k]
				b = le.AppendUint64(b[:0], h)
				b = le.AppendUint64(b, n.ports)
				b = le.AppendUint32(b, n.days)
				b = le.AppendUint32(b, n.first)
				b = le.AppendUint32(b, n.last)
				b = le.AppendUint16(b, uint16(n.score))
				b = le.AppendUint16(b, uint16(n.verified))
				if _, err := out.Write(b); err != nil {
					return fmt.Errorf("saving the memory of sources: %w", err)
				}
			}
		}
	}
	out.Write(make([]byte, entryBytes))
	if err := out.Flush(); err != nil {
		return fmt.Errorf("saving the memory of sources: %w", err)
	}
	if _, err := w.Write(le.AppendUint32(nil, sum.Sum32())); err != nil {
		return fmt.Errorf("saving the memory of sources: %w", err)
	}
	return nil
}

// Load is the memory that Save wrote, with its key. Where o has less room, the
// weakest are left out. It wraps ErrForeign, ErrVersion, ErrDamaged, or what r says.
func Load(r io.Reader, o Options) (*Long, error) {
	l, err := load(bufio.NewReaderSize(r, 64<<10), o)
	if err != nil {
		return nil, fmt.Errorf("loading the memory of sources: %w", err)
	}
	return l, nil
}

func load(r *bufio.Reader, o Options) (*Long, error) {
	var b [headerBytes]byte
	n, err := io.ReadFull(r, b[:])
	switch shown := min(n, len(magic)); {
	case err != nil && !ended(err):
		return nil, err
	case n == 0 || string(b[:shown]) != magic[:shown]:
		return nil, ErrForeign
	case err != nil:
		return nil, cut(err)
	}
	le := binary.LittleEndian
	at := b[len(magic):]
	if v := le.Uint32(at); v != version {
		age := "a newer"
		if v < version {
			age = "an older"
		}
		return nil, fmt.Errorf("%s version, %d and not %d: %w", age, v, version, ErrVersion)
	}
	l := newKeyed(o, keyOf([16]byte(at[4:20])))
	sum := checksum()
	sum.Write(b[:])
	for {
		e := b[:entryBytes]
		if _, err := io.ReadFull(r, e); err != nil {
			return nil, cut(err)
		}
		sum.Write(e)
		h := le.Uint64(e)
		if h == 0 {
			break
		}
		n := note{
			ports: le.Uint64(e[8:]), days: le.Uint32(e[16:]),
			first: le.Uint32(e[20:]), last: le.Uint32(e[24:]),
			score: int16(le.Uint16(e[28:])), verified: int16(le.Uint16(e[30:])),
		}
		if b, i := l.table.find(h); b != nil {
			l.table.set(b, i, h, n)
		} else {
			l.table.restore(h, n)
		}
	}
	if _, err := io.ReadFull(r, b[:4]); err != nil {
		return nil, cut(err)
	}
	if le.Uint32(b[:]) != sum.Sum32() {
		return nil, fmt.Errorf("wrong checksum: %w", ErrDamaged)
	}
	if _, err := r.ReadByte(); !ended(err) {
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("more than was saved: %w", ErrDamaged)
	}
	return l, nil
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func cut(err error) error {
	if ended(err) {
		return fmt.Errorf("it ends too early: %w", ErrDamaged)
	}
	return err
}
