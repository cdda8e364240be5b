package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	sqlite "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"portsentry/internal/proc"
)

// node says which file it is.
type node struct{ dev, ino uint64 }

// openTime bounds how long it takes to open a file, with the migrations it needs.
const openTime = 30 * time.Second

// Keys of what is said.
const (
	keyKept    = "database"         // whether it can be written
	keyStalled = "database stalled" // whether the disk does not answer
	keyDamaged = "database damaged" // a file was set aside: a person has to look at it
)

// openFile opens the database at o.Path, and falls back to memory, which begins with
// Run. Calls hold base, or have the Journal to themselves.
func (j *Journal) openFile() {
	err := j.openPath()
	if aside(err) {
		if err = j.setAside(err); err == nil {
			err = j.openPath()
		}
	}
	if err != nil {
		j.close()
		j.sayMemory(err)
		return
	}
	j.say(keyKept, "")
}

func (j *Journal) sayMemory(why error) {
	j.say(keyKept, fmt.Sprintf("what happens is kept in memory alone, and a reboot ends bans: %s: %v", j.o.Path, why))
}

func (j *Journal) openPath() error {
	if err := trust(j.o.Path); err != nil {
		return err
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: j.o.Path}
	w, empty, err := open(u.String()+vfs+"&_txlock=immediate&_pragma=auto_vacuum(incremental)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"+common, migrations[:])
	if err != nil {
		return err
	}
	r, err := sql.Open("sqlite", u.String()+vfs+"&mode=ro&_pragma=query_only(1)"+common)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(1)
	r.SetConnMaxIdleTime(time.Minute)
	j.write, j.read, j.kept, j.empty = w, r, true, empty
	j.node, err = nodeOf(j.o.Path)
	return err
}

// openMemory begins a database in memory, which has one connection.
func (j *Journal) openMemory() error {
	db, empty, err := open("file::memory:?_pragma=auto_vacuum(incremental)"+common, migrations[:])
	if err != nil {
		return err
	}
	j.write, j.read, j.kept, j.empty = db, db, false, empty
	return nil
}

// readers is how many may ask at once.
const readers = 2

// vfs has the index of the WAL in memory of ours. In a file that is mapped, as SQLite
// has it otherwise, a disk that stalls stops a thread in the middle of a plain write to
// memory: then the collector of garbage waits for it, and all of us for the collector.
// The price is that no other process can read the database meanwhile.
const vfs = "?vfs=unix-excl"

// common is what every connection is opened with: a cache of half a MiB each, and a
// WAL that does not stay large.
const common = "&_pragma=busy_timeout(2000)&_pragma=cache_size(-512)&_pragma=temp_store(memory)&_pragma=wal_autocheckpoint(512)&_pragma=journal_size_limit(2097152)"

// open opens a database, for one who writes, and brings it up to date.
func open(dsn string, steps []string) (db *sql.DB, empty bool, err error) {
	db, err = sql.Open("sqlite", dsn)
	if err != nil {
		return nil, false, err
	}
	db.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if empty, err = migrate(ctx, db, steps); err != nil {
		return nil, false, errors.Join(err, db.Close())
	}
	return db, empty, nil
}

// close closes what is open. Calls hold base.
func (j *Journal) close() error {
	if j.write == nil {
		return nil
	}
	var err error
	if j.read != j.write {
		err = j.read.Close()
	}
	err = errors.Join(err, j.write.Close()) // last: it puts the WAL away
	j.write, j.read, j.kept = nil, nil, false
	return err
}

// ErrUntrusted: somebody else decides what is in the file.
var ErrUntrusted = errors.New("others decide what is in it")

// trust makes the file where there is none, for its owner alone, and refuses one that
// somebody else could have put there: a link, one in a folder that others may write
// to, one that belongs to others.
func trust(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st unix.Stat_t
	ours := func() bool { return proc.Trusts(st.Uid) }
	switch err := unix.Stat(dir, &st); {
	case err != nil:
		return fmt.Errorf("%s: %w", dir, err)
	case !ours() || st.Mode&unix.S_IWOTH != 0:
		return fmt.Errorf("%w: others may write to %s; /var/lib/portsentry is a better place", ErrUntrusted, dir)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: it is a symbolic link", ErrUntrusted)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	switch err := unix.Fstat(int(f.Fd()), &st); {
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: it is no regular file", ErrUntrusted)
	case !ours():
		return fmt.Errorf("%w: it belongs to user %d; try chown root", ErrUntrusted, st.Uid)
	case st.Mode&unix.S_IWOTH != 0:
		return fmt.Errorf("%w: everybody may write to it; try chmod o-w", ErrUntrusted)
	}
	return nil
}

func nodeOf(path string) (node, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return node{}, fmt.Errorf("%s: %w", path, err)
	}
	return node{st.Dev, st.Ino}, nil
}

// errDamaged: what is in the file contradicts itself.
var errDamaged = errors.New("it is damaged")

// aside reports whether err is a reason to begin a new file.
func aside(err error) bool { return errors.Is(err, errNewer) || damaged(err) }

func damaged(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch code := e.Code(); code & 0xff {
	case codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB, codes.SQLITE_FORMAT:
		return true
	default:
		return code == codes.SQLITE_IOERR_SHORT_READ
	}
}

// unfit reports whether err is about what was to be written, and not about the disk.
func unfit(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_CONSTRAINT, codes.SQLITE_MISMATCH, codes.SQLITE_TOOBIG, codes.SQLITE_RANGE:
		return true
	}
	return false
}

// setAside gives the file, with its WAL, another name. Nothing of it is lost.
func (j *Journal) setAside(why error) error {
	word := "damaged"
	if errors.Is(why, errNewer) {
		word = "newer"
	}
	path := j.o.Path
	name := fmt.Sprintf("%s.%s-%s", path, word, time.Now().Format("20060102-150405"))
	for i := 1; ; i++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s.%s-%s.%d", path, word, time.Now().Format("20060102-150405"), i)
	}
	for _, end := range []string{"-wal", "-shm", ""} { // the file last: as long as it is there, so is what belongs to it
		if err := os.Rename(path+end, name+end); err != nil && !(end != "" && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("cannot be set aside, although %w: %w", why, err)
		}
	}
	j.say(keyDamaged, fmt.Sprintf("the database is begun anew: %s cannot be used (%v) and is kept as %s", path, why, name))
	return nil
}
