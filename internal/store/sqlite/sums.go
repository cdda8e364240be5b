package sqlite

import (
	"context"
	"database/sql"
	"time"

	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// mostTop is how long the rankings of Sums are.
const mostTop = 50

// Sums are the totals of what was seen from since until until, by whole intervals, and
// of bans.
func (j *Journal) Sums(ctx context.Context, since, until time.Time) (s store.Sums, err error) {
	f := store.Filter{Since: since, Until: until}
	seen, ports, begun, endings, standing := new(where), new(where), new(where), new(where), new(where)
	seen.inSlots(&f)
	ports.inSlots(&f)
	begun.during("began", &f)
	endings.and("ended > 0")
	endings.during("ended", &f)
	standing.and("ended = 0")
	named := *seen
	named.and("source <> x''")
	for _, q := range []struct {
		query string
		where *where
		order string
		scan  func(rows *sql.Rows) error
	}{
		{"SELECT total(count), total(triggered), total(iif(source = x'', count, 0)) FROM sightings", seen, "", func(rows *sql.Rows) error {
			var probes, triggered, together float64 // total is one
			err := rows.Scan(&probes, &triggered, &together)
			s.Probes, s.Triggered, s.Together = uint64(probes), uint64(triggered), uint64(together)
			return err
		}},
		{"SELECT count(DISTINCT source) FROM sightings", &named, "", func(rows *sql.Rows) error { return rows.Scan(&s.Sources) }},
		{"SELECT kind, sum(count) AS n FROM sightings", seen, " GROUP BY kind ORDER BY n DESC", func(rows *sql.Rows) error {
			var k store.KindSum
			err := rows.Scan(&k.Kind, &k.Count)
			s.Kinds = append(s.Kinds, k)
			return err
		}},
		{"SELECT port, proto, sum(count) AS n FROM ports", ports, " GROUP BY port, proto ORDER BY n DESC", func(rows *sql.Rows) error {
			var p store.PortSum
			err := rows.Scan(&p.Port, &p.Proto, &p.Count)
			s.Ports = append(s.Ports, p)
			return err
		}},
		{"SELECT source, sum(count) AS n FROM sightings", &named, " GROUP BY source ORDER BY n DESC", func(rows *sql.Rows) error {
			var t store.SourceSum
			var source sql.RawBytes
			err := rows.Scan(&source, &t.Count)
			t.Addr = bytesAddr(source)
			s.Top = append(s.Top, t)
			return err
		}},
		{"SELECT count(*) FROM bans", begun, "", func(rows *sql.Rows) error { return rows.Scan(&s.Begun) }},
		{"SELECT count(*) FROM bans", standing, "", func(rows *sql.Rows) error { return rows.Scan(&s.Standing) }},
		{"SELECT ending, count(*) AS n FROM bans", endings, " GROUP BY ending ORDER BY n DESC", func(rows *sql.Rows) error {
			var e store.EndingSum
			err := rows.Scan(&e.Ending, &e.Count)
			e.Ending = min(e.Ending, respond.Undone)
			s.Ended += e.Count
			s.Endings = append(s.Endings, e)
			return err
		}},
	} {
		if _, err := j.ask(ctx, q.query, q.where, q.order, mostTop, q.scan); err != nil {
			return s, err
		}
	}
	return s, nil
}
