import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // Every browser that plays our media knows modulepreload.
    modulePreload: { polyfill: false },
    // hls.js is one module of half a megabyte. On its own, it stays in the
    // browser's cache when our code changes.
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      output: { codeSplitting: { groups: [{ name: 'hls', test: /node_modules\/hls\.js/ }] } },
    },
  },
  server: {
    // `npm run dev` beside a server started by `millrace all`.
    proxy: { '/api': 'http://127.0.0.1:8080', '/hls': 'http://127.0.0.1:8080', '/chat/ws': { target: 'ws://127.0.0.1:8080', ws: true } },
  },
  // With style sheets: one test reads them.
  test: { include: ['src/**/*.test.ts'], css: true },
})
