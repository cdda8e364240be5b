package command

import (
	"fmt"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// send asks the helper for the next step of j.
func (c *Client) send(id uint64, j *job) error {
	o := &j.order
	r := request{
		id: id, step: o.Steps[len(j.actions)], host: o.Host, port: o.Port, flags: o.Flags, count: o.Count,
		proto: o.Proto, mode: c.modeOf(o.Proto), dialect: c.dialect, kind: detect.Kind(o.Kind), evidence: judge.Evidence(o.Evidence),
	}
	b := r.encode()
	return c.write(b[:])
}

// sendReload asks the helper to read its configuration again.
func (c *Client) sendReload(id uint64) error {
	b := encodeReload(id)
	return c.write(b[:])
}

// reloaded is what came of a reload.
func reloaded(r *reply) error {
	if r.status == OK {
		return nil
	}
	return fmt.Errorf("the command helper keeps the configuration it had: %s", r.detail)
}

func (c *Client) write(record []byte) error {
	c.expectBy(1)
	c.conn.SetWriteDeadline(time.Now().Add(answerLimit))
	_, err := c.conn.Write(record)
	return err
}

// modeOf is how the protocol is watched.
func (c *Client) modeOf(proto uint8) config.Mode {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch proto {
	case decode.ProtoTCP:
		return c.modes.TCP
	case decode.ProtoUDP:
		return c.modes.UDP
	}
	return config.Unwatched
}

// expectBy sets the time by which the helper has to be heard of.
func (c *Client) expectBy(steps int) {
	var by time.Time
	if steps > 0 {
		by = time.Now().Add(answerLimit)
	}
	c.conn.SetReadDeadline(by)
}

// book adds to j what came of its step.
func (c *Client) book(j *job, r *reply) {
	a := respond.Action{
		Step: j.order.Steps[len(j.actions)], Host: j.order.Host,
		Text: r.text, Skipped: r.status == Skipped, Took: r.took,
	}
	c.mu.Lock()
	if r.status != OK && r.status != Skipped {
		a.Err = &Error{Status: r.status, Code: int(r.code), Detail: r.detail}
		c.stats.Failed++
	}
	if r.status == TimedOut {
		c.stats.TimedOut++
	}
	c.stats.Malformed = uint64(r.refused)
	c.mu.Unlock()
	j.actions = append(j.actions, a)
}

// read hands on replies until the socket breaks.
func (c *Client) read(replies chan<- reply, broken chan<- error, ended <-chan struct{}) {
	b := make([]byte, replySize+1)
	for {
		n, err := c.conn.Read(b)
		var r reply
		if err == nil {
			r, err = decodeReply(b[:n])
		}
		if err != nil {
			broken <- err
			return
		}
		select {
		case replies <- r:
		case <-ended:
			return
		}
	}
}
