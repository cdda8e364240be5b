package app

import (
	"fmt"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/host"
	"portsentry/internal/view/log"
)

// openLog opens the log and says who we are. from is the file that chose the
// modes, if one did.
func (d *daemon) openLog(from string) {
	c := d.conf.Load()
	o := log.Options{
		Format: c.LogFormat, Modes: c.Modes, IgnoreFile: c.IgnoreFile,
		Verbose: d.o.Verbose || d.o.Debug, Debug: d.o.Debug,
		Stderr: d.o.Stderr, // of a detached daemon: whoever starts it reads it until it is ready
	}
	if d.o.ToStdout {
		o.Stdout = d.o.Stdout
	} else if !d.o.Detach && d.o.Dialect == config.Dialect2x {
		fmt.Fprintln(d.o.Stdout, d.o.Build) // as 2.x did wherever it logged to
	}
	if log.IsJournal(o.Stderr) && (o.Stdout == nil || log.IsJournal(o.Stdout)) {
		// Without it the streams lead there as well, and have no fields.
		o.Journal, _ = log.OpenJournal("")
	}
	var problem error
	if d.o.ToSyslog {
		o.Syslog, problem = log.OpenSyslog("")
	}
	d.log = log.New(o)
	d.problems.say = d.log.Problem
	d.log.Starting(d.o.Build.Version, d.o.Build.Commit)
	if problem != nil {
		d.problems.set("syslog", problem.Error())
	}
	if from != "" {
		d.say("how to watch is said in " + from)
	}
	for _, note := range c.Notes() {
		d.say(note)
	}
}

// lookAtLog says whether the system log takes what it is given.
func (d *daemon) lookAtLog() {
	err := d.log.Held()
	said := ""
	if err != nil {
		said = err.Error()
	}
	d.problems.set("syslog", said)
}

// setLog puts the words of next in force.
func (d *daemon) setLog(next *config.Config) {
	d.log.Reword(next.LogFormat, next.Modes, next.IgnoreFile)
}

// say tells whoever started us what PortSentry of old did not.
func (d *daemon) say(sentence string) {
	if !d.o.Detach || d.o.Verbose {
		d.log.Info(sentence)
	}
}

// sayPorts names the ports that are watched in the words of old.
func (d *daemon) sayPorts(c *config.Config) {
	var served [2]config.Bitmap
	if sockets, err := host.NewSockets(); err == nil {
		if all, err := sockets.Listeners(); err == nil {
			for _, l := range all {
				row := &served[0]
				if l.Proto == decode.ProtoUDP {
					row = &served[1]
				}
				if !l.Addr.IsLoopback() {
					row[l.Port>>6] |= 1 << (l.Port & 63)
				}
			}
		}
		sockets.Close()
	}
	tcp, udp := d.trapPorts(c)
	held := [2]*config.Bitmap{tcp.Bitmap(), udp.Bitmap()}
	mode := [2]config.Mode{c.Modes.TCP, c.Modes.UDP}
	d.log.Watching(c, func(udp bool, port uint16) bool {
		i := 0
		if udp {
			i = 1
		}
		if mode[i] == config.Connect {
			return !held[i].Has(port)
		}
		return served[i].Has(port)
	})
	d.log.Ignored(d.ignore.prefixes())
}
