package managers

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// etcd is one etcd server, spoken to through its JSON gateway.
type etcd struct {
	w    *world
	port int
	d    *daemon
}

func (w *world) startEtcd() *etcd {
	w.t.Helper()
	e := &etcd{w: w, port: freePort(w.t)}
	peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(w.t))
	client := fmt.Sprintf("http://127.0.0.1:%d", e.port)
	// Heartbeats and elections are of no use to one server alone; on a busy machine they would only be late.
	e.d = w.startDaemon("etcd", nil, "/usr/bin/etcd", "--name", "etcd", "--data-dir", filepath.Join(w.env.Dir("etcd"), "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "etcd="+peer,
		"--heartbeat-interval", "500", "--election-timeout", "5000", "--logger", "zap")
	w.wait("etcd to answer", func() bool {
		return e.call("/v3/kv/range", map[string]any{"key": encode("x")}, nil) == nil
	}, e.d.tail)
	return e
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// call asks the gateway; answer may be nil.
func (e *etcd) call(path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Post(fmt.Sprintf("http://127.0.0.1:%d%s", e.port, path), "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd says %s: %s", resp.Status, data)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

func (e *etcd) put(key, value string) {
	e.w.t.Helper()
	if err := e.call("/v3/kv/put", map[string]any{"key": encode(key), "value": encode(value)}, nil); err != nil {
		e.w.t.Fatal(err)
	}
}

// get is a key's value, empty if there is none.
func (e *etcd) get(key string) string {
	e.w.t.Helper()
	var answer struct {
		Kvs []struct{ Value []byte }
	}
	if err := e.call("/v3/kv/range", map[string]any{"key": encode(key)}, &answer); err != nil {
		e.w.t.Fatal(err)
	}
	if len(answer.Kvs) == 0 {
		return ""
	}
	return string(answer.Kvs[0].Value)
}

func (e *etcd) remove(key string) {
	e.w.t.Helper()
	if err := e.call("/v3/kv/deleterange", map[string]any{"key": encode(key)}, nil); err != nil {
		e.w.t.Fatal(err)
	}
}
