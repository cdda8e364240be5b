package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	tidyEvery = 10 * time.Minute // that what is too old is looked for, while things happen
	goAtOnce  = 4096             // rows of a table that go in one transaction
	pageSize  = 4096             // bytes, SQLite's own default
	walSize   = 3 << 20          // bytes, beside the pages: see common
	shrink    = 1024             // pages that are given back in one go
)

// forgotten takes out the oldest rows before the time ?1, ?2 at most. Bans that stand are
// none of them.
var forgotten = [...]string{
	`DELETE FROM sightings WHERE (slot, source, kind, proto) IN
		(SELECT slot, source, kind, proto FROM sightings WHERE slot < ?1 / 600000000000 ORDER BY slot LIMIT ?2)`,
	`DELETE FROM ports WHERE (slot, proto, port) IN
		(SELECT slot, proto, port FROM ports WHERE slot < ?1 / 600000000000 ORDER BY slot LIMIT ?2)`,
	`DELETE FROM sources WHERE source IN (SELECT source FROM sources WHERE last < ?1 ORDER BY last LIMIT ?2)`,
	`DELETE FROM ban_changes WHERE ban IN (SELECT id FROM bans WHERE ended > 0 AND ended < ?1 ORDER BY ended LIMIT ?2)`,
	`DELETE FROM bans WHERE id IN (SELECT id FROM bans WHERE ended > 0 AND ended < ?1 ORDER BY ended LIMIT ?2)`,
	`DELETE FROM changes WHERE id IN (SELECT id FROM changes WHERE time < ?1 ORDER BY time LIMIT ?2)`,
}

// oldest is when the oldest was that may be forgotten, unix nanoseconds.
const oldest = `SELECT min(t) FROM (
	SELECT min(slot) * 600000000000 AS t FROM sightings UNION ALL SELECT min(slot) * 600000000000 FROM ports
	UNION ALL SELECT min(last) FROM sources UNION ALL SELECT min(time) FROM changes
	UNION ALL SELECT * FROM (SELECT ended FROM bans WHERE ended > 0 ORDER BY ended LIMIT 1))`

// tidy forgets what is too old, and what is oldest when there is too much, a bounded
// part of it. It reports whether there may be more.
func (w *writer) tidy(ctx context.Context) (more bool, err error) {
	j := w.j
	pages, free, err := w.size(ctx)
	if err != nil {
		return false, err
	}
	j.base.RLock()
	most, keep := (j.o.Size-walSize)/pageSize, j.o.Keep
	if !j.kept {
		most = memorySize / pageSize
	}
	j.base.RUnlock()
	slack := most / 32 // free pages that stay for what comes next
	now := time.Now()
	gone, used := int64(0), pages-free
	if now.Sub(w.tidied) >= tidyEvery && keep > 0 {
		n, err := w.forget(ctx, now.Add(-keep))
		if err != nil {
			return false, err
		}
		if gone += n; n == 0 {
			w.tidied = now
		}
	}
	if used <= most {
		w.full = 0
	}
	if used > most && used > w.full || w.shrinking && used > most/8*7 {
		n, err := w.forgetOldest(ctx, now)
		if err != nil {
			return false, err
		}
		if w.shrinking = n > 0; !w.shrinking && !j.kept { // there is nothing that they would be put back from
			n, err = w.forgetBans(ctx)
			w.shrinking = n > 0
		}
		if !w.shrinking {
			w.full = used + slack // what is left has to stay: not again at each turn
		}
		if gone += n; err != nil {
			return false, err
		}
	} else {
		w.shrinking = false
	}
	if gone > 0 || free > 2*slack {
		if pages, free, err = w.size(ctx); err != nil {
			return false, err
		}
	}
	if free > 2*slack {
		err = w.vacuum(ctx, min(shrink, free-slack))
		free -= min(shrink, free-slack)
	}
	j.mu.Lock()
	j.stats.Bytes = pages * pageSize
	j.mu.Unlock()
	return gone > 0 || w.shrinking || free > 2*slack, err
}

// size is how many pages there are, and how many of them hold nothing.
func (w *writer) size(ctx context.Context) (pages, free int64, err error) {
	if w.j.write == nil {
		return 0, 0, errNotOpen
	}
	err = w.j.write.QueryRowContext(ctx, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count").Scan(&pages, &free)
	return pages, free, err
}

// forgetOldest forgets the first eighth of the time that the database spans, which is
// ten minutes at least.
func (w *writer) forgetOldest(ctx context.Context, now time.Time) (int64, error) {
	var first sql.NullInt64
	if err := w.j.write.QueryRowContext(ctx, oldest).Scan(&first); err != nil || !first.Valid {
		return 0, err
	}
	at := time.Unix(0, first.Int64)
	return w.forget(ctx, at.Add(max(span, now.Sub(at)/8)))
}

// forget takes out what is older than before, some of each table, and gives how many
// rows that were.
func (w *writer) forget(ctx context.Context, before time.Time) (gone int64, err error) {
	err = w.put(ctx, func(tx *sql.Tx) error {
		gone = 0
		for _, query := range forgotten {
			r, err := tx.ExecContext(ctx, query, before.UnixNano(), goAtOnce)
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			if err != nil {
				return err
			}
			gone += n
		}
		return nil
	})
	return gone, err
}

// vacuum gives n free pages back.
func (w *writer) vacuum(ctx context.Context, n int64) error {
	rows, err := w.j.write.QueryContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", n))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() { // each step frees a page
	}
	return rows.Err()
}

// forgetBans takes out the bans that began first, although they stand.
func (w *writer) forgetBans(ctx context.Context) (gone int64, err error) {
	err = w.put(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "DELETE FROM bans WHERE id IN (SELECT id FROM bans ORDER BY began LIMIT ?)", goAtOnce)
		if err != nil {
			return err
		}
		gone, err = r.RowsAffected()
		return err
	})
	return gone, err
}
