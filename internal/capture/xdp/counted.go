package xdp

import (
	"fmt"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

// maxCounted bounds what waits for a worker: as many sources as the program's
// table has room for, 1 MiB.
const maxCounted = 8192

// look empties the program's tables of probes for which there was no room, if it
// has counted any since the last look, and hands each to the worker whose source
// it is. Such a worker has a full ring before it: it is awake, and will look
// itself before it sleeps.
func (x *Source) look() error {
	x.looking.Lock()
	defer x.looking.Unlock()
	counted, err := x.sensor.Counted()
	if err == nil && counted != x.counted {
		// What is counted while the table is emptied counts as new the next time.
		x.counted = counted
		err = x.sensor.Missed(x.handOver)
	}
	if err != nil {
		return fmt.Errorf("xdp: %w", err)
	}
	return nil
}

func (x *Source) handOver(e *bpf.Event) {
	if i := int(e.Ip >> bpf.IPWorkerShift); i < len(x.workers) {
		x.workers[i].take(e)
	} else {
		x.workers[0].lost.Add(uint64(e.Times)) // never: a worker that there is none of
	}
}

// take keeps e for the worker's own goroutine, if there is room.
func (w *Worker) take(e *bpf.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.counted) == maxCounted {
		w.lost.Add(uint64(e.Times))
		return
	}
	w.counted = append(w.counted, *e)
}

// deliverCounted hands out what others, or the worker itself, have found in the
// table.
func (w *Worker) deliverCounted(events capture.EventHandler) {
	w.mu.Lock()
	counted := w.counted
	w.counted, w.spare = w.spare[:0], counted
	w.mu.Unlock()
	if len(counted) == 0 {
		return
	}
	epoch := programEpoch()
	for i := range counted {
		fill(&w.event, &counted[i], capture.EventCounted, epoch)
		events(&w.event)
	}
	w.events.Add(uint64(len(counted)))
}
