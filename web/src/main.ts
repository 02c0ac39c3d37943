import '@fontsource-variable/besley/wght.css'
import './tokens.css'
import './style.css'
import { mount } from 'svelte'
import App from './App.svelte'
import { parseRoute } from './route'

// On the watch page the player is wanted at once: fetch it beside everything else.
if (parseRoute(location.pathname).page === 'watch') void import('./Watch.svelte')

const target = document.getElementById('app')
if (target) mount(App, { target })
