package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// apiAnswerMax bounds what is read of an answer of the operators' API.
const apiAnswerMax = 16 << 20

// gateAPI is the operators' API of a gate that runs.
type gateAPI struct {
	address, key string
	client       *http.Client
}

// openOperatorsAPI checks an address and reads a key; it does not connect.
func openOperatorsAPI(address, keyFile string) (*gateAPI, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, errors.New("--api: want the address of the operators' API of the running gate, such as https://operators.example.com")
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
		return nil, errors.New("--api: want https:// unless the gate is on this machine: the key would be sent in the clear")
	}
	if keyFile == "" {
		return nil, errors.New("name the file that holds a key of the operators' API with --key-file")
	}
	f, err := os.Open(keyFile)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return nil, fmt.Errorf("the key: %s is empty", keyFile)
	}
	return &gateAPI{address: strings.TrimSuffix(address, "/"), key: key, client: &http.Client{
		Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// operatorsAPIFlags adds the flags that lead to an API.
func operatorsAPIFlags(cmd *cobra.Command) (open func() (*gateAPI, error)) {
	var address, keyFile string
	cmd.Flags().StringVar(&address, "api", "", "`address` of the operators' API, such as https://operators.example.com")
	cmd.Flags().StringVar(&keyFile, "key-file", "", "a `file` that holds a key of the operators' API")
	return func() (*gateAPI, error) { return openOperatorsAPI(address, keyFile) }
}

// call calls the API and returns the answer, where it is a good one. A body is JSON.
func (o *gateAPI) call(ctx context.Context, method, target string, body any) ([]byte, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, o.address+target, in)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+o.key)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := o.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, apiAnswerMax))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusCreated {
		return text, nil
	}
	var problem struct{ Title, Detail string }
	_ = json.Unmarshal(text, &problem) // what is no problem document says nothing
	return nil, fmt.Errorf("the gate answered %d %.200s %.500s", answer.StatusCode, problem.Title, problem.Detail)
}
