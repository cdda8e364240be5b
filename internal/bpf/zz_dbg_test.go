package bpf_test
import ("testing";"net";"net/netip";"time";"os/exec")
func TestZZ(t *testing.T){
	w:=newOnWire(t, verifyArmed)
	var cmd *exec.Cmd
	cmd=exec.Command("tcpdump","-nnevvi","eth0","-U","-w","/tmp/chal/x.pcap"); 
	w.scanner.NS.Do(func() (err error) { return cmd.Start()})
	time.Sleep(time.Second)
	for range 2 {
	for _, to := range []netip.Addr{w.host.Addr4(), w.host.Addr6()} {
		w.scanner.NS.Do(func() (err error) {
			c, err:=net.DialTimeout("tcp", netip.AddrPortFrom(to, trap).String(), time.Second)
			t.Log(to, err); if c!=nil {c.Close()}
			return err
		})
		t.Logf("%+v", w.counted())
	}
	}
	for _,e := range []string{w.scanner.NS.Name(),w.host.NS.Name()} {
	o,_:=exec.Command("sh","-c","ip netns exec "+e+" ethtool -S eth0; ip netns exec "+e+" ip -s link show eth0; ip netns exec "+e+" ethtool -k eth0 | grep -i 'gro\\|generic'; ip netns exec "+e+" nstat -a | grep -i 'err\\|drop\\|csum\\|Discard'").CombinedOutput()
	t.Logf("%s",o)
	}
	cmd.Process.Kill(); cmd.Wait()
}
