package host
import ("testing";"context";"time";"golang.org/x/sys/unix";"unsafe")
func cpu() time.Duration { var r unix.Rusage; unix.Getrusage(unix.RUSAGE_SELF,&r); return time.Duration(r.Utime.Nano()+r.Stime.Nano()) }
func TestIdle(t *testing.T) {
	p, _ := NewPeers()
	measure := func(name string, f func(ctx context.Context)) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second); defer cancel()
		a := cpu(); f(ctx); t.Log(name, "cpu per s", (cpu()-a)/10)
	}
	fd := p.snmp.Fd()
	loop := func(d time.Duration, f func()) func(context.Context) { return func(ctx context.Context){ tk := time.NewTicker(d); defer tk.Stop(); for { select {case <-ctx.Done(): return; case <-tk.C: f()} } } }
	for range 2 {
	measure("nothing", func(ctx context.Context){ <-ctx.Done() })
	measure("ticker 4", loop(250*time.Millisecond, func(){}))
	measure("raw pread 4", loop(250*time.Millisecond, func(){ unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&p.buf[0])), 4096,0,0,0) }))
	measure("pread 4", loop(250*time.Millisecond, func(){ p.passiveOpens() }))
	measure("ticker 1", loop(1000*time.Millisecond, func(){}))
	measure("pread 1", loop(1000*time.Millisecond, func(){ p.passiveOpens() }))
	}
}
