import { fileURLToPath } from 'node:url'
import react from '@vitejs/plugin-react'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const server = 'http://127.0.0.1:8000'

/** The server answers /docs with docs.html; the development server has to do the same. */
const docsAddress: Plugin = {
  name: 'docs-address',
  configureServer({ middlewares }) {
    middlewares.use((request, _response, next) => {
      if (request.url === '/docs') request.url = '/docs.html'
      next()
    })
  },
}

export default defineConfig({
  base: '/',
  plugins: [react(), docsAddress],
  server: { proxy: { '/api': { target: server, ws: true }, '/v1': server, '/schema': server } },
  build: {
    outDir: here('../server/web/static'),
    emptyOutDir: true,
    // An inlined asset would need data: in more places of the Content-Security-Policy.
    assetsInlineLimit: 0,
    // Swagger UI comes as one bundle; only the API docs page loads it.
    chunkSizeWarningLimit: 1800,
    rolldownOptions: { input: [here('index.html'), here('docs.html')] },
  },
  test: {
    environment: 'jsdom',
    setupFiles: ['src/test/setup.ts'],
    restoreMocks: true,
    unstubGlobals: true,
    testTimeout: 20_000,
  },
})
