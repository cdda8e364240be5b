package app

import "time"

// pace bounds how often something is done: one in every, and so much ahead of that at
// once (the generic cell rate algorithm). It is for one goroutine.
type pace struct {
	every, ahead time.Duration
	used         int64 // up to when it is used up, unix nanoseconds
}

// may reports whether it may be done at the time t, unix nanoseconds, and counts it.
func (p *pace) may(t int64) bool {
	if p.used > t+int64(p.ahead) {
		return false
	}
	p.used = max(p.used, t) + int64(p.every)
	return true
}
