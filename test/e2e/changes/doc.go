// Package changes tests what people change while the daemon runs, with the built
// program and a real kernel: bans by hand keep a client out and let it in again,
// nobody locks himself out, what is not confirmed is taken back, and the group may do
// what it may. The sessions of testdata/*.txtar are the commands with what they print.
package changes
