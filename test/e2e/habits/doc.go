// Package habits tests what administrators are used to from a daemon, with the
// built program on a machine of its own: that it detaches, logs to syslog, keeps
// a pid file, reads the files of packagers, takes a second start in, reloads,
// follows its files and outlives readers and disks that do not.
package habits
