/** Where to go after logging in, carried in the address of the log-in page. */

export function loginPath(from: string): string {
  return from === '/' ? '/login' : `/login?next=${encodeURIComponent(from)}`
}

/** The API docs are a page of their own, which the server sends: no route of the client leads there. */
export function isOwnPage(path: string): boolean {
  return path === '/docs' || path.startsWith('/docs?') || path.startsWith('/docs#')
}

/** Only paths of this origin: an open redirect would lend a phisher our name. */
export function nextPath(search: string): string {
  const next = new URLSearchParams(search).get('next')
  if (next === null || !/^\/(?![/\\])/.test(next) || /[\s\\]/.test(next)) return '/'
  return next.startsWith('/login') ? '/' : next
}
