package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFileWatch(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ignore")
	w, err := WatchFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range []func(){
		func() { write("ignore") }, // made
		func() { write("ignore") }, // written
		func() { write("new"); os.Rename(filepath.Join(dir, "new"), path) },
		func() { os.Remove(path) },
	} {
		change()
		select {
		case <-w.Changed():
		case <-time.After(5 * time.Second):
			t.Fatal("a change was not noticed")
		}
	}
	select { // what one change may send twice
	case <-w.Changed():
	default:
	}
	write("other")
	write("another")
	select {
	case <-w.Changed():
		t.Error("a file that is not watched was reported")
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
}

func TestFileWatchWithoutFolder(t *testing.T) {
	if _, err := WatchFiles("/nonexistent/folder/file"); err == nil {
		t.Error("a folder that is not there cannot be watched; nothing was said")
	}
}

// There is no FileWatch when root's inotify instances are all taken.
func TestNoFileWatch(t *testing.T) {
	var w *FileWatch
	select {
	case <-w.Changed():
		t.Error("nothing has changed")
	default:
	}
}
