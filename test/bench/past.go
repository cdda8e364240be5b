package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"portsentry/internal/respond"
	"portsentry/internal/store/sqlite"
	"portsentry/test/harness"
)

// restore measures a start after a reboot: the database has bans, and the kernel none.
func (b *bench) restore(ctx context.Context) error {
	return b.each(func(by way) error { return b.restoreOf(ctx, by) })
}

func (b *bench) restoreOf(ctx context.Context, by way) error {
	for _, c := range []struct {
		n     int
		limit time.Duration
	}{{100_000, 2 * time.Second}, {550_000, 10 * time.Second}} {
		n := b.count(c.n)
		path := filepath.Join(b.dir, fmt.Sprintf("%s-%d.db", by.name, n))
		if err := fill(ctx, path, banList(n)); err != nil {
			return err
		}
		config := by.banning()
		config["DATABASE_FILE"] = path
		err := b.with(ctx, config, func(_ *world, d *harness.Daemon) error {
			st, err := d.Status(ctx)
			if err != nil {
				return err
			}
			b.row(by.name, thousands(n)+" bans back in the kernel after a reboot, ready", fmt.Sprintf("at most %v", c.limit),
				d.ReadyAfter <= c.limit && st.Bans == n, "%v, %s in force", d.ReadyAfter.Round(time.Millisecond), thousands(st.Bans))
			if _, err := settle(ctx, d); err != nil {
				return err
			}
			for _, args := range [][]string{{"bans", "--json"}, {"bans"}} {
				begin := time.Now()
				list, err := d.Command(ctx, args...)
				if err != nil {
					return err
				}
				took, limit := time.Since(begin), time.Duration(max(1, n/100_000))*time.Second
				b.row(by.name, "  portsentry "+strings.Join(args, " "), fmt.Sprintf("at most %v", limit), took <= limit, "%v, %.1f MiB", took.Round(time.Millisecond), mib(int64(len(list))))
			}
			return nil
		})
		if err = errors.Join(err, os.Remove(path)); err != nil {
			return err
		}
	}
	return nil
}

// fill makes a database in which bans stand.
func fill(ctx context.Context, path string, bans []respond.Ban) error {
	rows := make([]respond.InForce, len(bans))
	for i := range bans {
		rows[i].Ban = bans[i]
	}
	var failed error
	j := sqlite.Open(sqlite.Options{
		Path: path, Keep: 24 * time.Hour, Size: 256 << 20,
		Say: func(_, what string) {
			if what != "" {
				failed = errors.Join(failed, errors.New(what))
			}
		},
		Standing: func() []respond.InForce { return rows },
	})
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- j.Run(run) }()
	err := j.Flush(ctx)
	cancel()
	return errors.Join(err, <-done, j.Close(), failed)
}

// database measures what a flood of forged sources, each banned, leaves on the disk.
func (b *bench) database(ctx context.Context) error {
	return b.each(func(by way) error {
		const limit = 32 // MiB
		path := filepath.Join(b.dir, by.name+".db")
		config := by.banning()
		config["DATABASE_FILE"], config["DATABASE_SIZE"] = path, fmt.Sprint(limit)
		return b.with(ctx, config, func(w *world, d *harness.Daemon) error {
			f, err := w.flood(ctx, d, b.count(millionSources), 100_000)
			if err != nil {
				return err
			}
			var size int64
			for _, name := range []string{path, path + "-wal"} {
				if fi, err := os.Stat(name); err == nil {
					size += fi.Size()
				}
			}
			b.row(by.name, "database after "+thousands(f.arrived)+" forged sources", fmt.Sprintf("at most %d MiB (DATABASE_SIZE)", limit),
				size <= limit<<20, "%.1f MiB; %.2f CPU s per million", mib(size), f.perMillion())
			return nil
		})
	})
}
