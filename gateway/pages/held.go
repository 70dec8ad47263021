package pages

import "time"

// The fields that forms of a held login send, beside "csrf".
const (
	FieldCSRF     = "csrf"
	FieldCode     = "code"       // digits of an app, digits that were mailed, the short code of an app, an administrator's code, a mailed recovery code
	FieldRecovery = "recovery"   // a recovery code
	FieldKey      = "credential" // JSON of a PublicKeyCredential (WebAuthn Level 3, section 5.1)
	FieldRemember = "remember"   // "1" if this device is to be remembered
	FieldName     = "name"       // what the owner calls a new key
	FieldKept     = "kept"       // "1": the recovery codes were kept
	FieldDo       = "do"         // which of several buttons, as the view says
)

// Factor asks for a second factor. Its form sends to Action one of FieldKey,
// FieldRecovery and FieldCode; where several are filled, the first of these counts. It
// sends FieldRemember too if that was offered and chosen.
type Factor struct {
	Action, CSRF string
	StepUp       bool   // the person is signed in, and is asked again before something sensitive
	Unsure       bool   // nothing is said of the password
	Account      string // whose factor is asked for, if it may be told
	Client       string // the program that signs in, such as "Firefox on Windows"
	Place        string // where from

	Key      bool   // a passkey or security key is offered
	KeyBegin string // where the script gets options for it, by POST with FieldCSRF: JSON
	TOTP     bool   // a code of an app is offered
	Recovery bool   // a recovery code is offered

	Failed   bool          // what was given was not right: one sentence for all reasons
	Wait     time.Duration // nothing is looked at until then
	Remember int           // for how many days this device can be remembered; 0: not offered
	Cancel   string        // form: gives up, by POST with FieldCSRF; empty: not offered
	Lost     string        // link: who has lost everything; empty: none
}

func (f Factor) screen() screen {
	s := screen{template: "factor", title: "factor.title", keys: f.Key, forms: true}
	if f.StepUp {
		s.title = "factor.step-up.title"
	}
	return s
}

// Confirm asks for the eight digits that were mailed: FieldCode to Action.
type Confirm struct {
	Action, CSRF  string
	Account       string // as in Factor
	Client, Place string
	Unsure        bool          // nothing is said of the password, nor of where to
	Mail          []string      // where to, masked
	Failed        bool          // the digits were not right
	Wait          time.Duration // nothing is looked at until then
	Resend        string        // form: sends new digits, by POST with FieldCSRF; empty: not now
	Resent        bool          // new digits were just sent
	Until         time.Time     // a second factor must be there by then; zero: nothing is said of it
	Cancel        string        // as in Factor
}

func (Confirm) screen() screen {
	return screen{template: "confirm", title: "confirm.title", forms: true}
}

// Code asks for the short code that an app shows, so that nobody approves a sign-in
// that is not his: FieldCode to Action, and FieldDo "continue" or "deny". Who denies
// need not have typed a code.
type Code struct {
	Action, CSRF  string
	Client, Place string
	Asked         time.Time // when the app asked; zero: not told
	Failed        bool
	Wait          time.Duration
}

func (Code) screen() screen { return screen{template: "code", title: "code.title", forms: true} }

// Elsewhere says that a sign-in cannot be approved from another network than it came from.
type Elsewhere struct{}

func (Elsewhere) screen() screen { return screen{template: "elsewhere", title: "elsewhere.title"} }

// Done says that the second factor was right.
type Done struct {
	Return string // link: where the person wanted to go; empty: back to the app, where signing in passes once
}

func (Done) screen() screen { return screen{template: "done", title: "done.title"} }

// Over says that this sign-in cannot go on: it took too long, was stopped, or is used.
type Over struct{}

func (Over) screen() screen { return screen{template: "over", title: "over.title"} }

// Denied thanks who said that a sign-in was not his.
type Denied struct{}

func (Denied) screen() screen { return screen{template: "denied", title: "denied.title"} }

var sharedWords = map[string]phrase{
	"service":      {"this service", "このサービス"},
	"guard":        {"Protected by Kidoban", "Kidoban が保護しています"},
	"reference":    {"Reference code", "参照番号"},
	"account":      {"Account", "アカウント"},
	"client":       {"With", "使用環境"},
	"place":        {"Where", "場所"},
	"when":         {"When", "日時"},
	"to":           {"To", "送り先"},
	"continue":     {"Continue", "続ける"},
	"cancel":       {"Stop signing in", "ログインをやめる"},
	"sign-in":      {"Sign in again", "もう一度ログインする"},
	"home":         {"Go to %s", "%s へ"},
	"wait":         {"There were too many attempts. Please try again in %s.", "試行回数が多すぎます。%s後にもう一度お試しください。"},
	"span.second":  {"%d second", "%d秒"},
	"span.seconds": {"%d seconds", "%d秒"},
	"span.minute":  {"%d minute", "%d分"},
	"span.minutes": {"%d minutes", "%d分"},
	"span.hour":    {"%d hour", "%d時間"},
	"span.hours":   {"%d hours", "%d時間"},
	"span.day":     {"%d day", "%d日"},
	"span.days":    {"%d days", "%d日"},

	"key.without":   {"To use a passkey or security key, this browser must know passkeys and be allowed to run JavaScript.", "パスキーやセキュリティキーを使うには、パスキーに対応したブラウザーで JavaScript を有効にしてください。"},
	"key.stopped":   {"Nothing was sent: it was stopped, or took too long. You can try again.", "操作が取り消されたか、時間切れになりました。もう一度お試しいただけます。"},
	"key.failed":    {"The key could not be used. Please try again, or choose another way.", "キーを使用できませんでした。もう一度お試しいただくか、別の方法をお選びください。"},
	"key.already":   {"This device or key is already set up for your account.", "この端末またはキーはすでに登録されています。"},
	"key.unreached": {"The page is no longer valid, or the connection was lost. Please reload the page and try again.", "ページの有効期限が切れたか、接続が途切れました。ページを再読み込みして、もう一度お試しください。"},
}

var heldWords = map[string]phrase{
	"factor.title":         {"Confirm that it is you", "ご本人の確認"},
	"factor.intro":         {"Your password was accepted. To protect your account, %s asks for a second step.", "パスワードを確認しました。アカウントを守るため、%s では二要素認証をお願いしています。"},
	"factor.unsure":        {"To protect your account, %s asks for a second step. If it does not pass, your name or password may have been wrong: go back and sign in again.", "アカウントを守るため、%s では二要素認証をお願いしています。確認できない場合は、ユーザー名かパスワードが違っている可能性があります。前の画面に戻り、もう一度ログインしてください。"},
	"factor.step-up.title": {"Please confirm again", "もう一度ご確認ください"},
	"factor.step-up.intro": {"Before this change we ask for your second step again. You stay signed in.", "この操作の前に、もう一度二要素認証をお願いします。ログインした状態はそのままです。"},
	"factor.failed":        {"That was not right. Please try again.", "確認できませんでした。もう一度お試しください。"},
	"factor.key":           {"Use a passkey or security key", "パスキーまたはセキュリティキーを使う"},
	"factor.or":            {"or", "または"},
	"factor.totp":          {"Code of your authenticator app", "認証アプリのコード"},
	"factor.totp.hint":     {"Six digits that the app shows now.", "アプリに現在表示されている6桁の数字です。"},
	"factor.recovery.open": {"Use a recovery code instead", "リカバリーコードを使う"},
	"factor.recovery":      {"Recovery code", "リカバリーコード"},
	"factor.recovery.hint": {"One of the ten codes that you kept. Each works once.", "保管していただいた10個のコードのうちの1つです。それぞれ1回だけ使えます。"},
	"factor.recovery.go":   {"Use this recovery code", "このリカバリーコードを使う"},
	"factor.remember.1":    {"Do not ask on this device for 1 day", "この端末では1日間たずねない"},
	"factor.remember":      {"Do not ask on this device for %d days", "この端末では%d日間たずねない"},
	"factor.remember.hint": {"This lowers the protection of your account: until then the password alone is enough here. Choose it only on a device that nobody else uses.", "アカウントの保護は弱くなります。この期間は、この端末ではパスワードだけでログインできます。ご自分だけが使う端末でのみお選びください。"},
	"factor.lost":          {"I have lost all of these", "どれも使えなくなった場合"},
	"factor.notyou":        {"If you are not signing in right now, stop here and change your password.", "お心当たりがない場合は、ここで中止し、パスワードを変更してください。"},

	"confirm.title":  {"Enter the code we mailed you", "メールで届いたコードの入力"},
	"confirm.intro":  {"Your password was accepted. To be sure that it is you, we have sent an eight-digit code to:", "パスワードを確認しました。ご本人であることを確かめるため、次のアドレスに8桁のコードをお送りしました。"},
	"confirm.none":   {"Your password was accepted. To be sure that it is you, we have sent an eight-digit code to your mail address.", "パスワードを確認しました。ご本人であることを確かめるため、登録されているメールアドレスに8桁のコードをお送りしました。"},
	"confirm.unsure": {"To be sure that it is you, we send an eight-digit code to your mail address. If no code arrives, your name or password may have been wrong: go back and sign in again.", "ご本人であることを確かめるため、登録されているメールアドレスに8桁のコードをお送りします。コードが届かない場合は、ユーザー名かパスワードが違っている可能性があります。前の画面に戻り、もう一度ログインしてください。"},
	"confirm.code":   {"Eight-digit code", "8桁のコード"},
	"confirm.hint":   {"The message may take a minute. Look in the spam folder too.", "届くまで1分ほどかかることがあります。迷惑メールのフォルダーもご確認ください。"},
	"confirm.never":  {"Type the code on this page only, and never pass it on. Neither the people of %s nor those of Kidoban ever ask for it, by telephone, chat or mail.", "コードはこのページにだけ入力し、誰にも教えないでください。%s や Kidoban の担当者が、電話やチャット、メールでコードをお尋ねすることは決してありません。"},
	"confirm.failed": {"The code was not right. Please look at the latest message and try again.", "コードを確認できませんでした。最新のメールをご覧になり、もう一度お試しください。"},
	"confirm.resend": {"Send a new code", "新しいコードを送る"},
	"confirm.resent": {"A new code is on its way. Earlier ones no longer work.", "新しいコードをお送りしました。以前のコードは使えません。"},
	"confirm.until":  {"From %s on, signing in needs a second step such as a passkey or an authenticator app. You can set it up on your account page after you have signed in.", "%sからは、ログインにパスキーや認証アプリなどの二要素認証が必要になります。ログイン後にアカウントページで設定していただけます。"},

	"code.title":  {"Did you just start this sign-in?", "このログインは、ご自身の操作ですか"},
	"code.intro":  {"An app is signing in to your account at %s:", "%s のあなたのアカウントへのログインが、次の環境から始められています。"},
	"code.warn":   {"Go on only if you started it yourself just now, on a device that is in front of you. If somebody sent you this link or a code, it was not you.", "たった今、お手元の端末でご自身が始めた場合にだけ続けてください。このリンクやコードを誰かから受け取った場合は、ご自身の操作ではありません。"},
	"code.code":   {"Code that the app shows", "アプリに表示されているコード"},
	"code.hint":   {"Eight letters, such as BCDF-GHJK.", "8文字の英字です（例: BCDF-GHJK）。"},
	"code.failed": {"The code was not right. Please type the code that the app shows now.", "コードを確認できませんでした。アプリに現在表示されているコードを入力してください。"},
	"code.deny":   {"It was not me", "自分の操作ではありません"},

	"elsewhere.title": {"This cannot be approved here", "ここからは承認できません"},
	"elsewhere.why":   {"The app that is signing in uses another internet connection than this browser. So that nobody can be talked into letting a stranger in, a sign-in can be approved only over the connection it came from.", "ログインしようとしているアプリは、このブラウザーとは別のインターネット接続を使っています。他人のログインを承認させられることを防ぐため、同じ接続からのみ承認できます。"},
	"elsewhere.next":  {"If it is you: connect both devices to the same network, such as the same Wi-Fi, or open the address in a browser on the device with the app.", "ご自身の操作の場合は、両方の端末を同じネットワーク（同じ Wi-Fi など）につなぐか、アプリのある端末のブラウザーでこのアドレスを開いてください。"},
	"elsewhere.not":   {"If somebody sent you this address: do nothing, and nobody gets in. Somebody may know your password, so change it.", "このアドレスを誰かから受け取った場合は、何もしなければログインされることはありません。パスワードを知られている可能性がありますので、変更してください。"},

	"done.title":   {"Thank you, it is you", "ご本人の確認ができました"},
	"done.browser": {"The second step was right. You can go on.", "二要素認証が完了しました。このままお進みください。"},
	"done.app":     {"Go back to the app. If it does not go on by itself, sign in there once more: it passes once within ten minutes, without another question.", "アプリにお戻りください。自動的に進まない場合は、アプリでもう一度ログインしてください。10分以内であれば、一度だけ追加の確認なしでログインできます。"},
	"done.close":   {"You can close this page.", "このページは閉じていただいてかまいません。"},

	"over.title": {"This sign-in is over", "このログインは終了しました"},
	"over.why":   {"It took too long, was stopped, or has been used already.", "時間が経過したか、中止されたか、すでに使用されています。"},
	"over.next":  {"Please sign in again.", "もう一度ログインしてください。"},

	"denied.title": {"Thank you, it was stopped", "ログインを止めました"},
	"denied.why":   {"Nobody was let in. But somebody knows your password.", "誰もログインしていません。ただし、第三者があなたのパスワードを知っています。"},
	"denied.next":  {"Please change it now, and wherever else you use the same one. Then tell your administrator.", "すぐにパスワードを変更し、同じパスワードを使っているほかのサービスでも変更してください。そのうえで、管理者にお知らせください。"},
}
