package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// askEnv, when set, makes the test binary ask at that path for what whatEnv says, the
// method and the address, and print what came: it is how the tests ask as somebody else.
const (
	askEnv  = "PORTSENTRY_TEST_ASK"
	whatEnv = "PORTSENTRY_TEST_WHAT"
)

func askAndPrint(path string) {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	method, what, _ := strings.Cut(os.Getenv(whatEnv), " ")
	req, err := http.NewRequest(method, "http://portsentry"+what, http.NoBody)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := c.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(body)), err)
}

// askAs runs askAndPrint with other credentials, for the status if nothing else is said.
func askAs(t *testing.T, path string, cred *syscall.Credential, what ...string) string {
	t.Helper()
	what = append(what, "GET /v1/status")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), askEnv+"="+path, whatEnv+"="+what[0], "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// groupOf is the number of a group that every system has.
func groupOf(t *testing.T, name string) uint32 {
	t.Helper()
	g, err := user.LookupGroup(name)
	if err != nil {
		t.Skip("needs the group " + name)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func TestWhoMayAsk(t *testing.T) {
	needRoot(t)
	gid := groupOf(t, "daemon")
	many := make([]uint32, 500) // more than fit into the first buffer
	for i := range many {
		many[i] = 70000 + uint32(i)
	}
	many[499] = gid

	const mayNot = "403 {\"error\":\"you may not ask portsentry\",\"hint\":\"ask as root or as a member of group daemon\"}"
	tests := []struct {
		name string
		cred syscall.Credential
		want string
	}{
		{"root", syscall.Credential{}, "200 "},
		{"root in no group", syscall.Credential{Gid: 60000}, "200 "},
		{"primary group", syscall.Credential{Uid: 60000, Gid: gid}, "200 "},
		{"supplementary group", syscall.Credential{Uid: 60000, Gid: 60000, Groups: []uint32{4, gid, 60001}}, "200 "},
		{"one of 500 groups", syscall.Credential{Uid: 60000, Gid: 60000, Groups: many}, "200 "},
		{"nobody we know", syscall.Credential{Uid: 60000, Gid: 60000}, mayNot},
		{"in root's group only", syscall.Credential{Uid: 60000, Gid: 0, Groups: []uint32{0}}, mayNot},
		{"in other groups", syscall.Credential{Uid: 60000, Gid: 60000, Groups: []uint32{4, 60001}}, mayNot},
	}
	s, path := start(t, newBackend(), "daemon")
	openWay(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 || info.Sys().(*syscall.Stat_t).Gid != gid {
		t.Errorf("socket: %v, %v; want 0660 root:daemon", info, err)
	}

	// As it is, the file's mode keeps strangers out.
	if got := askAs(t, path, &tests[5].cred); !strings.Contains(got, "permission denied") {
		t.Errorf("a stranger got through the file's mode: %s", got)
	}
	// Whatever becomes of the mode, the peer's credentials decide.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	refused := uint64(0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := askAs(t, path, &tt.cred); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %s want %s", got, tt.want)
			}
		})
		if tt.want == mayNot {
			refused++
		}
	}
	if got := s.Stats().Refused; got != refused {
		t.Errorf("Refused = %d, want %d", got, refused)
	}
}

func TestWithoutTheGroupOnlyRootMayAsk(t *testing.T) {
	needRoot(t)
	_, path := start(t, newBackend(), "no-such-group")
	openWay(t, path)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := askAs(t, path, &syscall.Credential{}); !strings.HasPrefix(got, "200 ") {
		t.Errorf("root: %s", got)
	}
	for _, gid := range []uint32{0, 60000} {
		got := askAs(t, path, &syscall.Credential{Uid: 60000, Gid: gid, Groups: []uint32{0}})
		if !strings.HasPrefix(got, "403 ") || !strings.Contains(got, `"hint":"ask as root"`) {
			t.Errorf("gid %d: %s", gid, got)
		}
	}
}

// openWay lets everybody reach the test's directory.
func openWay(t *testing.T, path string) {
	t.Helper()
	for d := filepath.Dir(path); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
