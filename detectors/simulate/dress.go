package simulate

import (
	"net/http"

	"github.com/kidoban/kidoban/detectors"
)

// dressOf is what a simulated client program says of itself over HTTP: programs with
// different header sets or families in events differ in theirs here.
func dressOf(c detectors.Client) http.Header {
	if h := dressed[c]; h != nil {
		return h
	}
	return http.Header{"User-Agent": {c.Family}}
}

var dressed = map[detectors.Client]http.Header{
	programs[0].client: chromium("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Google Chrome", "Windows"),
	programs[1].client: chromium("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0", "Microsoft Edge", "Windows"),
	programs[2].client: with(chromium("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Google Chrome", "macOS"),
		"Dnt", "1"),
	programs[3].client: with(dress("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15", "ja-JP,ja;q=0.9"),
		"Priority", "u=3, i"),
	programs[4].client: dress("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0", "ja,en-US;q=0.7,en;q=0.3"),
	programs[5].client: {"User-Agent": {"Chat/612 CFNetwork/3860.100.1 Darwin/25.0.0"}, "Accept-Language": {"ja"}, "Priority": {"u=3"}},
	programs[6].client: {"User-Agent": {"okhttp/5.3.0"}, "Accept-Language": {"ja-JP"}, "X-App-Version": {"6.12.0"}},
	programs[7].client: with(chromium("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chat/3.8.0 Chrome/140.0.0.0 Electron/38.2.0 Safari/537.36", "Chromium", "Windows"),
		"X-App-Version", "3.8.0"),
	tools[0]: {"User-Agent": {"python-requests/2.32.5"}, "Cache-Control": {"no-cache"}},
	tools[1]: {"User-Agent": {"okhttp/4.9.3"}},
	tools[2]: {"User-Agent": {"Go-http-client/1.1"}},
	tools[3]: {"User-Agent": {"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/96.0.4664.110 Safari/537.36"}, "Accept-Language": {"en-US"}, "Pragma": {"no-cache"}},
	tools[4]: {"User-Agent": {"curl/8.17.0"}},
}

func chromium(agent, brand, system string) http.Header {
	return with(dress(agent, "ja,en-US;q=0.9,en;q=0.8"),
		"Sec-Ch-Ua", `"Chromium";v="142", "`+brand+`";v="142", "Not_A Brand";v="99"`, "Sec-Ch-Ua-Mobile", "?0", "Sec-Ch-Ua-Platform", `"`+system+`"`, "Priority", "u=1, i")
}

// with adds fields, each followed by its value.
func with(h http.Header, fields ...string) http.Header {
	for i := 0; i < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
	return h
}
